"""Other implementations' loops as contenders: diffusers, denoising-diffusion-pytorch and azula, where installed.

Each loop is the library's own code for a step, driven as the library drives it but for its progress bar, around the
same network; guidance as it is usual there. It draws its own noise, but for the comparison of pictures, where ours is
put in the place of the function that it asks.
"""

import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.contenders import (
    COMPILED_ONE_CALL,
    FLOAT32,
    ONE_CALL,
    TWO_CALLS,
    VARIANTS,
    Advance,
    Contender,
    Path_,
    ddim_path,
    full_path,
    share_of_steps,
    shown_by,
)
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import Noise, PhiloxNoise
from sampler.trajectory import Trajectory

# what denoising-diffusion-pytorch imports for its trainer and its evaluation, and its sampler never uses
FOR_ITS_TRAINER = ("torchvision", "torchvision.transforms", "torchvision.utils", "accelerate", "ema_pytorch")
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
OBJECTIVES = {"epsilon": "pred_noise", "x0": "pred_x0", "v": "pred_v"}
Step = Callable[[Tensor, int], Tensor]  # (state, position on the path) -> the next state


def by_steps(step: Step, path: Trajectory, owner: Any, name: str) -> Advance:
    """A loop of one library's steps; owner.name is the function that it asks for noise."""

    @torch.no_grad()
    def advance(x: Tensor, positions: Sequence[int], noise: Noise, after_step=None) -> Tensor:
        with ours_instead(owner, name, path, noise) as at:
            for i, position in enumerate(positions):
                at[0] = position
                x = step(x, position)
                if after_step is not None:
                    after_step(i, x)
        return x

    return advance


@contextmanager
def ours_instead(owner: Any, name: str, path: Trajectory, noise: Noise) -> Iterator[list[int]]:
    """Let a library draw counter-based noise, where the caller has such; else it draws its own as it always does."""
    at = [0]
    if not isinstance(noise, PhiloxNoise):
        yield at
        return
    theirs = getattr(owner, name)
    like: list[Tensor] = []

    def draw(what: Any, *_: Any, **options: Any) -> Tensor:
        shape = what.shape if isinstance(what, Tensor) else what
        if not like:
            like.append(torch.empty(shape))
        return noise.draw(path.timesteps[at[0]], like[0])

    setattr(owner, name, draw)
    try:
        yield at
    finally:
        setattr(owner, name, theirs)


def guided_in_one_call(model: Model, condition: Condition | None, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """As pipelines of diffusers guide: the batch twice, one call, the halves combined."""
    if condition is None or scale == 1:
        return lambda x, t: model.network(x, t.expand(len(x)), None if condition is None else condition.value)
    both = torch.cat([condition.value, condition.null])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        out = model.network(torch.cat([x, x]), t.expand(2 * len(x)), both)
        conditional, unconditional = out.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return predict


def guided_in_two_calls(model: Model, condition: Condition | None, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """One call with the condition, one without."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        out = model.network(x, t, None if condition is None else condition.value)
        if condition is None or scale == 1:
            return out
        return (unconditional := model.network(x, t, condition.null)) + scale * (out - unconditional)

    return predict


def diffusers_ddpm(model: Model, condition: Condition | None, scale: float, path: Trajectory) -> Advance:
    """As DDPMPipeline loops: the network, then `scheduler.step`."""
    import diffusers.schedulers.scheduling_ddpm as theirs

    scheduler = theirs.DDPMScheduler(**_scheduled(model))
    if path.steps == model.schedule.steps:
        scheduler.set_timesteps(path.steps)
    else:
        scheduler.set_timesteps(timesteps=list(path.timesteps))
    predict = guided_in_one_call(model, condition, scale)
    timesteps = torch.tensor(path.timesteps)

    def step(x: Tensor, position: int) -> Tensor:
        t = timesteps[position]
        return scheduler.step(predict(x, t), t, x).prev_sample

    return by_steps(step, path, theirs, "randn_tensor")


def diffusers_ddim(model: Model, condition: Condition | None, scale: float, path: Trajectory) -> Advance:
    """As DDIMPipeline loops, clipping as ours does."""
    import diffusers.schedulers.scheduling_ddim as theirs

    scheduler = theirs.DDIMScheduler(**_scheduled(model), timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(path.steps)
    predict = guided_in_one_call(model, condition, scale)
    timesteps = torch.tensor(path.timesteps)

    def step(x: Tensor, position: int) -> Tensor:
        t = timesteps[position]
        return scheduler.step(predict(x, t), t, x, use_clipped_model_output=True).prev_sample

    return by_steps(step, path, theirs, "randn_tensor")


def _scheduled(model: Model) -> dict[str, Any]:
    return {
        "num_train_timesteps": model.schedule.steps, "trained_betas": model.schedule.betas.tolist(),
        "prediction_type": PREDICTIONS[model.prediction], "clip_sample": model.clip is not None,
        "clip_sample_range": model.clip or 1.0,
    }  # fmt: skip


class Bound(nn.Module):
    """What denoising-diffusion-pytorch's GaussianDiffusion wants of a Unet, around another network."""

    def __init__(self, predict: Callable[[Tensor, Tensor], Tensor], channels: int, timesteps: Tensor):
        super().__init__()
        self.predict, self.timesteps = predict, timesteps
        self.channels = self.out_dim = channels
        self.self_condition = False

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        return self.predict(x, self.timesteps[t])


def p_sample(model: Model, condition: Condition | None, scale: float, path: Trajectory) -> Advance:
    """As denoising-diffusion-pytorch's p_sample_loop loops: `p_sample` at every timestep."""
    theirs: Any = denoising_diffusion()
    kept = model.schedule.alphas_cumprod[list(reversed(path.timesteps))]  # of the path, from the clean end up
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=kept.dtype), kept[:-1]])
    network = Bound(guided_in_two_calls(model, condition, scale), model.shape[0], torch.tensor(path.timesteps[::-1]))
    linear, theirs.linear_beta_schedule = theirs.linear_beta_schedule, lambda timesteps: betas
    try:
        diffusion = theirs.GaussianDiffusion(
            network, image_size=model.shape[1:], timesteps=path.steps, beta_schedule="linear",
            objective=OBJECTIVES[model.prediction], auto_normalize=False,
        )  # fmt: skip
    finally:
        theirs.linear_beta_schedule = linear

    def step(x: Tensor, position: int) -> Tensor:
        return diffusion.p_sample(x, path.steps - 1 - position)[0]

    return by_steps(step, path, torch, "randn_like")


def azula_loop(kind: str) -> Callable[..., Advance]:
    """As azula's samplers loop: `step` from one time to the next, around a denoiser with our table as its schedule."""

    def make(model: Model, condition: Condition | None, scale: float, path: Trajectory) -> Advance:
        import azula.denoise
        import azula.noise
        import azula.sample

        class Schedule(azula.noise.Schedule):
            """√ᾱ and √(1-ᾱ) at the path's timesteps, by their place; place 0 is the clean end."""

            def __init__(self) -> None:
                kept = torch.cat([torch.ones(1), model.schedule.alphas_cumprod[list(reversed(path.timesteps))]])
                self.alphas, self.sigmas = kept.sqrt().float(), (1 - kept).sqrt().float()

            def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
                return self.alphas[t], self.sigmas[t]

            def alpha(self, t: Tensor) -> Tensor:
                return self.alphas[t]

            def sigma(self, t: Tensor) -> Tensor:
                return self.sigmas[t]

        timesteps = torch.tensor([0, *reversed(path.timesteps)])
        predict = guided_in_two_calls(model, condition, scale)
        bound = float("inf") if model.clip is None else model.clip

        class Denoiser(azula.denoise.Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = Schedule()

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
                alpha, sigma = self.schedule(t)
                out = predict(x_t, timesteps[t].expand(len(x_t)))
                x0 = {"epsilon": lambda: (x_t - sigma * out) / alpha, "x0": lambda: out,
                      "v": lambda: alpha * x_t - sigma * out}[model.prediction]()  # fmt: skip
                return azula.denoise.DiracPosterior(mean=x0.clamp(-bound, bound))

        sampler = getattr(azula.sample, kind)(Denoiser(), silent=True)
        places = torch.arange(path.steps, -1, -1)

        def step(x: Tensor, position: int) -> Tensor:
            return sampler.step(x, places[position], places[position + 1])

        return by_steps(step, path, torch, "randn_like")

    return make


def denoising_diffusion() -> ModuleType:
    """denoising-diffusion-pytorch's module with `Unet` and `GaussianDiffusion`.

    Where what its trainer needs is missing or broken (a torchvision built for another PyTorch), hollow modules stand
    in for that while it is imported. ImportError where the package itself is not there.
    """
    before = {name: sys.modules.get(name) for name in FOR_ITS_TRAINER}
    try:
        for name in FOR_ITS_TRAINER:
            _or_hollow(name)
        return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    finally:
        for name, module in before.items():
            if module is None and getattr(sys.modules.get(name), "hollow", False):
                del sys.modules[name]


def _or_hollow(name: str) -> None:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError):
        module = _Hollow(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


class _Hollow(ModuleType):
    """Has whatever is asked of it, and nothing in it."""

    hollow = True

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


_TWENTIETH = share_of_steps(1 / 20)
PLAIN, EVERY_20TH = VARIANTS["reference"], ddim_path(1 / 20)
OF_FEWER: dict[str, Any] = {"path": EVERY_20TH, "lossless": False, "probed_on_its_path": True}
CONTENDERS = [
    Contender("diffusers-ddpm", "DDPMScheduler's step, in a pipeline's loop", PLAIN, full_path, package="diffusers",
              loop=diffusers_ddpm, engaged=shown_by(ONE_CALL, FLOAT32)),
    Contender("ddpm-pytorch", "denoising-diffusion-pytorch's p_sample", PLAIN, full_path, loop=p_sample,
              package="denoising_diffusion_pytorch", engaged=shown_by(TWO_CALLS, FLOAT32)),
    Contender("azula-ddpm", "azula's DDPMSampler", PLAIN, full_path, loop=azula_loop("DDPMSampler"), package="azula",
              engaged=shown_by(TWO_CALLS, FLOAT32)),
    Contender("diffusers-ddim", "DDIMScheduler's step, in a pipeline's loop", PLAIN, loop=diffusers_ddim,
              package="diffusers", engaged=shown_by(ONE_CALL, FLOAT32, steps=_TWENTIETH), **OF_FEWER),
    Contender("azula-ddim", "azula's DDIMSampler", PLAIN, loop=azula_loop("DDIMSampler"), package="azula",
              engaged=shown_by(TWO_CALLS, FLOAT32, steps=_TWENTIETH), **OF_FEWER),
]  # fmt: skip
PEERS = [contender.name for contender in CONTENDERS]
# ours, beside the shipped rows, on the path of the DDIM loops: guided in one call, and as fast as the picture stays
CONTENDERS += [
    Contender("ddim-batched", "ddim with batched guidance", VARIANTS["batched-cfg"],
              engaged=shown_by(ONE_CALL, FLOAT32, steps=_TWENTIETH), **OF_FEWER),
    Contender("ddim-lossless", "ddim with all of all-lossless", VARIANTS["all-lossless"],
              engaged=shown_by(*COMPILED_ONE_CALL, FLOAT32, steps=_TWENTIETH), **OF_FEWER),
]  # fmt: skip
# our rows that draw the picture of the peers' loops on a path, each at as many steps
OURS: dict[Path_, tuple[str, ...]] = {
    full_path: ("reference", "native-update", "batched-cfg", "all-lossless"),
    EVERY_20TH: ("ddim", "ddim-batched", "ddim-lossless"),
}
# our plain row that takes the same steps and guides alike: (with guidance, without)
COUNTERPARTS = {
    "diffusers-ddpm": ("batched-cfg", "reference"), "ddpm-pytorch": ("reference", "reference"),
    "azula-ddpm": ("reference", "reference"), "diffusers-ddim": ("ddim-batched", "ddim"),
    "azula-ddim": ("ddim", "ddim"),
}  # fmt: skip
