"""One fault in each seam, of the kind that no picture shows at a glance; each claims to change no picture.

They can be planted: `measure(..., plant="tests.bench.quality.faults")`.
"""

from dataclasses import replace

import torch
from torch import Tensor

from bench.contenders import Contender, full_path
from sampler import guidance, precision, runtime
from sampler.guidance import Condition, Denoiser, Predict
from sampler.posterior import Guided, posterior
from sampler.trajectory import COLUMNS, Trajectory
from sampler.variants import Update, Variant

SIGMA = COLUMNS.index("sigma")


def sigma_off(model, steps: int) -> Trajectory:
    """Every σ wrong in the fourth digit."""
    path = full_path(model, steps)
    rows = path.rows.clone()
    rows[:, SIGMA] *= 1.0002
    return replace(path, rows=rows)


def one_coefficient_off(model, steps: int) -> Trajectory:
    """One coefficient of one row wrong in the sixth digit."""
    path = full_path(model, steps)
    rows = path.rows.clone()
    rows[steps // 2, COLUMNS.index("c")] *= 1.000002
    return replace(path, rows=rows)


def step_left_out(model, steps: int) -> Trajectory:
    """A path that lacks one timestep."""
    path = full_path(model, steps)
    return path.at([i for i in range(steps) if i != steps // 2])


def sigma_off_in_the_update(x: Tensor, out, z: Tensor, row: Tensor) -> Tensor:
    return posterior(x, out, z * 1.0002, row)


def halves_swapped(network: Denoiser, condition: Condition | None, scale: float) -> Predict:
    right = guidance.sequential_cfg(network, condition, scale)

    def predict(x: Tensor, t: Tensor) -> Tensor | Guided:
        out = right.of_input(x, t)
        return Guided(out.unconditional, out.conditional, out.scale) if isinstance(out, Guided) else out

    return Predict(predict)


def noise_reused(step):
    """The first step's noise in every step."""
    walk = runtime.eager(step)

    def reuse(x, leg, after):
        first = leg.timesteps[0]
        return walk(x, replace(leg, noise=lambda timestep, x: leg.noise(first, x)), after)

    return reuse


def step_skipped(step):
    """The loop leaves its third step out, and says that it took it."""

    def walk(x, leg, after):
        taken = iter(range(len(leg.timesteps)))

        def some(x, noise, t, row):
            return x if next(taken) == 2 else step(x, noise, t, row)

        return runtime.one_by_one(some)(x, leg, after)

    return walk


def ends_early(step):
    """The loop stops one step before the end."""

    def walk(x, leg, after):
        n = len(leg.timesteps) - 1
        if n < 1:
            return x
        shorter = replace(leg, timesteps=leg.timesteps[:n], ts=leg.ts[:n], rows=leg.rows[:n])
        return runtime.eager(step)(x, shorter, after)

    return walk


def half_state(x: Tensor, out, z: Tensor, row: Tensor) -> Tensor:
    """The state kept in float16 between steps."""
    return posterior(x, out, z, row).to(torch.float16).to(x.dtype)


def half_inside(network):
    """A layout that keeps the weights in bfloat16, of a row that says float32."""
    return precision.cast(torch.bfloat16)(network).network


def _planted(name: str, path=full_path, **seams) -> Contender:
    return Contender(name, name, Variant(name, **seams), path=path)


# what is planted -> a word of the sentence that must name it
FAULTS = {
    "sigma-off": (_planted("sigma-off", sigma_off), "sigma at timestep"),
    "coefficient-off": (_planted("coefficient-off", one_coefficient_off), "declared one: c at"),
    "step-left-out": (_planted("step-left-out", step_left_out), "is missing"),
    "sigma-off-in-update": (
        _planted("sigma-off-in-update", update=Update(lambda: sigma_off_in_the_update)), "off a float64 run"),
    "halves-swapped": (_planted("halves-swapped", guide=halves_swapped), "off a float64 run"),
    "noise-reused": (_planted("noise-reused", runtime=noise_reused), "off a float64 run"),
    "step-skipped": (_planted("step-skipped", runtime=step_skipped), "off a float64 run"),
    "ends-early": (_planted("ends-early", runtime=ends_early), "steps it came to the end of"),
    "half-inside": (_planted("half-inside", layout=half_inside), "off a float64 run"),
    "half-state": (_planted("half-state", update=Update(lambda: half_state)), "off a float64 run"),
}  # fmt: skip
CONTENDERS = [contender for contender, _ in FAULTS.values()]
