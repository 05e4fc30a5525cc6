"""`python -m sampler animate`: how pictures come out of the noise, as an animated GIF or WebP."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sampler import cpu, own_models
from sampler.asked import add_path_options, at_least, at_most, class_names, fitting_guidance, labels_of, path_of
from sampler.errors import UsageError
from sampler.files import replacing, writable_picture
from sampler.generate import Samples, grid, sample
from sampler.lacks import check_device, lacks_told
from sampler.model_check import check, tell
from sampler.models import Model, checked_device, load_model
from sampler.sets.formats import check_format
from sampler.variants import variant

FORMATS = (".gif", ".webp")
FRAME_MS, LAST_MS = 60, 2000
NOISY, ESTIMATE = "noisy", "estimate"


def run_animate(arguments: argparse.Namespace) -> None:
    """Draw samples and show them on their way: the noisy state, or the network's estimate of the picture."""
    at_least(1, per_label=arguments.per_label, steps=arguments.steps, frames=arguments.frames,
             threads=arguments.threads, enlarge=arguments.enlarge)  # fmt: skip
    at_most(cpu.usable(), "the CPUs that may be used here", threads=arguments.threads)
    if arguments.show not in (NOISY, ESTIMATE):
        raise UsageError(f"--show {arguments.show} is neither {NOISY!r} nor {ESTIMATE!r}")
    way, device = variant(arguments.variant), checked_device(arguments.device)
    check_device(way, device)
    path = writable_picture(arguments.out, FORMATS)
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device, arguments.weights)
    rows = labels_of(model, arguments.labels, class_names(arguments.model))
    trajectory = path_of(model, arguments.sampler, arguments.steps, arguments.spacing)
    shown = min(arguments.frames, trajectory.steps)
    guidance = fitting_guidance(model, arguments.guidance)
    check_format("png", model)  # a GIF and a WebP hold no other channels
    tell(check(model))
    with lacks_told(way):
        samples = sample(
            model, trajectory, labels=torch.tensor(rows).repeat_interleave(arguments.per_label) if rows else None,
            count=None if rows else arguments.per_label, guidance=guidance, variant=way, seed=arguments.seed,
            keep=[trajectory.timesteps[i * trajectory.steps // shown] for i in range(shown)],
        )  # fmt: skip
    frames = [_frame(model, states, arguments) for states in stages(samples, arguments.show)]
    with replacing(path) as partial:
        frames[0].save(
            partial, format=path.suffix[1:], save_all=True, append_images=frames[1:], loop=0, lossless=True,
            duration=[FRAME_MS] * (len(frames) - 1) + [LAST_MS],
        )  # fmt: skip
    print(path)


def stages(samples: Samples, show: str) -> list[Tensor]:
    """What is to be seen, from the noise to the finished samples: [N, C, H, W] each."""
    return [*(kept[show == ESTIMATE] for kept in samples.kept.values()), samples.images]


def _frame(model: Model, states: Tensor, arguments: argparse.Namespace) -> Image.Image:
    picture = (grid(model.pictures(states), arguments.per_label) * 255).round().to(torch.uint8).permute(1, 2, 0)
    frame = Image.fromarray(picture.squeeze(-1).numpy())
    size = frame.width * arguments.enlarge, frame.height * arguments.enlarge
    return frame.resize(size, Image.Resampling.NEAREST)


def add_to(command: Callable) -> None:
    given = "default: %(default)s"
    add = command(
        "animate", run_animate, "python -m sampler animate --labels bag,sneaker --steps 250 --out bags.webp"
    ).add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the animation to write: .gif or .webp")
    add("--show", default=ESTIMATE, help=f"{NOISY}: the state; {ESTIMATE}: what the network makes of it ({given})")
    add("--frames", type=int, default=48, metavar="N", help=f"pictures of the way, spread evenly ({given})")
    add("--labels", metavar="L", help="'0-9', '0,3,5' or names: bag,sneaker (default: the first ten)")
    add("--per-label", type=int, default=4, metavar="N", help=f"samples a row ({given})")
    add("--seed", type=int, default=0, help=f"same seed, same pictures ({given})")
    add("--guidance", type=float, metavar="S", help="scale of guidance; 1 is none (default: 3 where there are labels)")
    add("--steps", type=int, default=100, metavar="N", help=f"sampler steps ({given})")
    add_path_options(add)
    add("--variant", default="batched-cfg", help=f"one that `variants` lists ({given})")
    add("--model", default="fashion-mnist", help=f"one that `models` lists, or your own: {own_models.HOW} ({given})")
    add("--weights", type=Path, metavar="FILE", help="your own weights for a shipped model, from `train`")
    add("--device", default="cpu", help=f"cpu or cuda ({given})")
    add("--threads", type=int, default=1, help=f"CPU threads ({given})")
    add("--enlarge", type=int, default=3, metavar="N", help=f"side of a pixel in the picture ({given})")
