"""The commands: train a model, draw from it, look at a signal being denoised, list what there is."""

from sampler import start

STOPPED = "\npython -m sampler: interrupted"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import csv
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save

from sampler import animate_command, card, check_command, cpu, data, figures, schedule, signal
from sampler.asked import (
    add_drawing_options,
    at_least,
    at_most,
    check_path,
    class_names,
    fitting_guidance,
    labels_of,
    path_of,
)
from sampler.errors import UsageError, unknown, until_the_reader_leaves
from sampler.files import replacing, writable_folder, writable_picture
from sampler.generate import sample
from sampler.lacks import check_device, lacks_told
from sampler.model_check import check, tell
from sampler.models import RECIPES, WEIGHTS, checked_device, load_model
from sampler.sets import command as sets_command
from sampler.sets.formats import check_format
from sampler.training import TrainingOptions, train
from sampler.unet import UNet
from sampler.variants import REFERENCE, VARIANTS, Variant, variant

MISTAKE = 3
MOST_ENLARGED = 64


def main(argv: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one sentence on the error stream and exit status 3."""
    try:
        return until_the_reader_leaves(lambda: _run(argv))
    except UsageError as mistake:
        start.say(f"python -m sampler: {mistake}")
        return MISTAKE
    except KeyboardInterrupt as interruption:
        start.say(f"{STOPPED}{interruption}")
        return start.INTERRUPTED


def _run(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.run(arguments) or 0


def run_train(arguments: argparse.Namespace) -> None:
    """Train a model, and leave its weights, loss and record in a folder."""
    if arguments.model not in RECIPES:
        raise unknown("model", arguments.model, RECIPES)
    config = RECIPES[arguments.model].config
    if config.image_channels != 1:
        raise UsageError(f"model {arguments.model!r} takes colour images; Fashion-MNIST's are grey")
    at_least(1, images=arguments.images, batch=arguments.batch, threads=arguments.threads)
    at_most(cpu.usable(), "the CPUs that may be used here", threads=arguments.threads)
    if not 0 <= arguments.seed < 1 << 31:
        raise UsageError(f"--seed {arguments.seed} is outside 0…2^31-1")
    device = checked_device(arguments.device)
    folder = writable_folder(arguments.out)
    try:
        images, labels = data.fashion_mnist(root=arguments.data)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"the data set in {arguments.data} cannot be read ({error})") from None
    if len(images) < arguments.batch:
        raise UsageError(f"--batch {arguments.batch} is more than the {len(images)} images in {arguments.data}")
    border = (config.image_size - images.shape[-1]) // 2
    images = F.pad(images, (border,) * 4, value=-1.0)

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    network = UNet(config).to(device)
    options = TrainingOptions(images=arguments.images, batch=arguments.batch, seed=arguments.seed)
    try:
        ema = train(
            network, schedule.linear(), images, labels, options, folder,
            checkpoint_seconds=arguments.checkpoint_s, report=_report,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command goes on from the last checkpoint") from None

    weights = folder / f"{arguments.model}.safetensors"
    with replacing(weights) as partial:
        # not save_file, whose files only their owner may read
        partial.write_bytes(save({name: value.cpu() for name, value in ema.items()}))
    figures.save_loss(folder / "loss.csv", folder / "loss.png")
    with open(folder / "loss.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    record = card.TrainingRecord(
        model=arguments.model,
        options=options,
        device=device.type,
        threads=arguments.threads,
        parameters=sum(p.numel() for p in network.parameters()),
        data_images=len(images),
        seconds=float(last["seconds"]),
        final_loss=float(last["loss"]),
        sha256=card.sha256(weights),
        machine=card.describe_machine(device),
        torch=torch.__version__,
        python=".".join(map(str, sys.version_info[:3])),
    )
    record.write(folder / f"{arguments.model}.json")
    print(f"{weights}\nsha256 {record.sha256}")


def run_grid(arguments: argparse.Namespace) -> None:
    """Draw a grid of samples, a row for each label."""
    at_least(1, per_label=arguments.per_label, steps=arguments.steps, threads=arguments.threads,
              batch=arguments.batch, enlarge=arguments.enlarge)  # fmt: skip
    at_most(cpu.usable(), "the CPUs that may be used here", threads=arguments.threads)
    at_most(MOST_ENLARGED, "where a picture of 28 pixels is as wide as a screen", enlarge=arguments.enlarge)
    check_path(arguments.sampler, arguments.spacing)
    way = variant(arguments.variant)
    device = checked_device(arguments.device)
    check_device(way, device)
    path = writable_picture(arguments.out)
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device, arguments.weights)
    guidance = fitting_guidance(model, arguments.guidance)
    names = class_names(arguments.model)
    rows = labels_of(model, arguments.labels, names)
    labels = torch.tensor(rows).repeat_interleave(arguments.per_label) if rows else None
    if not model.trained:
        _report(f"note: the weights of {model.name!r} are random, and so will the pictures be")
    trajectory = path_of(model, arguments.sampler, arguments.steps, arguments.spacing)
    check_format("png", model)
    tell(check(model))
    with lacks_told(way):
        samples = sample(
            model, trajectory, labels=labels, count=None if rows else arguments.per_label, guidance=guidance,
            variant=way, seed=arguments.seed, batch_size=arguments.batch,
        )  # fmt: skip
    titles = [names[label] if names else str(label) for label in rows]
    figures.save_grid(model.pictures(samples.images), path, arguments.per_label, titles, arguments.enlarge)
    print(path)


def run_signal(arguments: argparse.Namespace) -> None:
    """Draw a signal with a denoiser known in closed form, and show how it comes out of the noise."""
    path = writable_picture(arguments.out)
    torch.set_num_threads(1)
    for way, name in signal.save_demonstration(path, arguments.seed).items():
        _report(f"{way} arrived at a {name}")
    print(path)


def run_models(arguments: argparse.Namespace) -> None:
    """List the shipped models."""
    for name, recipe in RECIPES.items():
        c = recipe.config
        parameters = sum(p.numel() for p in UNet(c).parameters())
        if recipe.weights is None:
            state = "random weights"
        else:
            state = "trained" if (WEIGHTS / recipe.weights).exists() else "weights missing"
        size = f"{c.image_channels}×{c.image_size}×{c.image_size}"
        print(f"{name:18}{parameters:>10,} parameters, {size}, {c.classes} classes, {state}")
        print(f"{'':18}{recipe.about}")


def run_variants(arguments: argparse.Namespace) -> None:
    """List the named variants: the seams at which each differs from the reference, and what is put there."""
    seams = [field.name for field in fields(Variant) if field.name not in ("name", "needs")]
    for name, way in VARIANTS.items():
        changed = [s for s in seams if getattr(way, s) != getattr(REFERENCE, s)]
        what = ", ".join(f"{s}: {_in_words(getattr(way, s))}" for s in changed)
        print(f"{name:22}{way.needs or 'any':6}{what or 'what the others are measured against'}")


def _in_words(part) -> str:
    # a function made by another (autocast by its number format) goes by its maker's name
    return part.__qualname__.split(".")[0].strip("_") if callable(part) else str(part)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    given = "default: %(default)s"
    parser = _Parser(prog="python -m sampler", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=run.__doc__,
            description=run.__doc__,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    o = TrainingOptions()
    add = command(
        "train", run_train,
        "python -m sampler train --images 900000 --out my-weights\n\n"
        "A killed run is resumed by the same command, and ends in the same bits as one that was not killed.\n"
        "The folder gets MODEL.safetensors (the averaged weights), MODEL.json (how they were made),\n"
        "loss.csv, loss.png and checkpoint.pt.",
    ).add_argument  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder for what is made")
    add(
        "--data",
        type=Path,
        default=data.DEFAULT_ROOT,
        metavar="DIR",
        help=f"folder of Fashion-MNIST ({given})",
    )
    add("--model", default="fashion-mnist", help=f"one that `models` lists ({given})")
    add("--images", type=int, default=o.images, metavar="N", help=f"images seen, repetitions too ({given})")
    add("--batch", type=int, default=o.batch, help=f"images a step ({given})")
    add("--seed", type=int, default=o.seed, help=f"decides every random number ({given})")
    add("--threads", type=int, default=1, help=f"CPU threads; they decide the last bits ({given})")
    add("--device", default="cpu", help=f"cpu or cuda ({given})")
    add("--checkpoint-s", type=float, default=60.0, metavar="S", help=f"seconds between checkpoints ({given})")

    add = command(
        "grid", run_grid,
        "python -m sampler grid --labels 0-9 --per-label 8 --guidance 3 --steps 250 --out grid.png\n"
        "  python -m sampler grid --sampler dpm++2m --steps 8 --spacing logsnr --out eight-steps.png\n"
        "  python -m sampler grid --labels bag,sneaker --sampler ddim --steps 50 --out two-rows.png",
    ).add_argument  # fmt: skip
    add("--out", type=Path, required=True, metavar="PNG", help="the picture to write")
    add("--labels", metavar="L", help="'0-9', '0,3,5' or names: bag,sneaker (default: the first ten)")
    add("--per-label", type=int, default=8, metavar="N", help=f"samples a row ({given})")
    add_drawing_options(add)
    add("--device", default="cpu", help=f"cpu or cuda ({given})")
    add("--batch", type=int, default=64, help=f"samples at once ({given})")
    add("--threads", type=int, default=1, help=f"CPU threads ({given})")
    add("--enlarge", type=int, default=3, metavar="N", help=f"side of a pixel in the picture ({given})")

    add = command("signal", run_signal, "python -m sampler signal --seed 7 --out signal.png").add_argument
    add("--out", type=Path, required=True, metavar="PNG", help="the picture to write")
    add("--seed", type=int, default=7, help=f"another seed, other signals ({given})")

    command("models", run_models, "python -m sampler models")
    check_command.add_to(command)
    sets_command.add_to(command)
    animate_command.add_to(command)
    command("variants", run_variants, "python -m sampler variants")
    return parser


if __name__ == "__main__":
    start.finish(main, STOPPED)
