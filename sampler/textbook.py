"""The textbook's loops, verbatim in what they do: a baseline and an oracle, not an example to follow.

Unclipped x0, σ = √β, two network calls for guidance, the schedule looked up on the host in every step.
The strided loop counts its stride in whole timesteps (so that 300 asked for become 334) and stops one
level short of the data, leaving the noise of timestep 0 in its pictures.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampler.errors import UsageError
from sampler.guidance import Condition, Denoiser
from sampler.noise import Noise
from sampler.schedule import NoiseSchedule

AfterStep = Callable[[int, Tensor], None]


@torch.no_grad()
def textbook_ddpm(
    network: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    noise: Noise,
    condition: Condition | None = None,
    scale: float = 1.0,
    timesteps: Sequence[int] | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Ancestral sampling as Ho et al. (2020), algorithm 2, prints it; x [B, C, H, W] is x_T.

    timesteps: some of T-1…0 alone, for timing a part; after_step(i, x) is called after each.
    """
    betas, alphas_cumprod = schedule.betas.float(), schedule.alphas_cumprod.float()
    timesteps = range(schedule.steps - 1, -1, -1) if timesteps is None else timesteps
    for i, t in enumerate(timesteps):
        out = _predict(network, x, t, condition, scale)
        beta, alpha_bar = betas[t].item(), alphas_cumprod[t].item()
        x = (x - beta / (1 - alpha_bar) ** 0.5 * out) / (1 - beta) ** 0.5
        if t > 0:
            x = x + beta**0.5 * noise.draw(t, x)
        if after_step is not None:
            after_step(i, x)
    return x


@torch.no_grad()
def textbook_strided(
    network: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    noise: Noise,
    condition: Condition | None = None,
    scale: float = 1.0,
    steps: int = 250,
    timesteps: Sequence[int] | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Every (T // steps)-th timestep: estimate x0, then noise it afresh to the next level.

    timesteps: some of those it visits alone, for timing a part.
    """
    alphas_cumprod = schedule.alphas_cumprod.float()
    visited = textbook_strided_timesteps(schedule, steps)
    stride = -visited.step
    timesteps = visited if timesteps is None else timesteps
    for i, t in enumerate(timesteps):
        out = _predict(network, x, t, condition, scale)
        now, then = alphas_cumprod[t].item(), alphas_cumprod[max(t - stride, 0)].item()
        x0 = (x - (1 - now) ** 0.5 * out) / now**0.5
        x = then**0.5 * x0 + (1 - then) ** 0.5 * noise.draw(t, x)
        if after_step is not None:
            after_step(i, x)
    return x


def textbook_strided_timesteps(schedule: NoiseSchedule, steps: int) -> range:
    """The timesteps the strided loop visits: 334 of 1,000 when 300 are asked for."""
    if not 1 <= steps <= schedule.steps:
        raise UsageError(f"steps = {steps} is outside 1…{schedule.steps}, the schedule's timesteps")
    return range(schedule.steps - 1, -1, -(schedule.steps // steps))


def _predict(network: Denoiser, x: Tensor, t: int, condition: Condition | None, scale: float) -> Tensor:
    timestep = torch.full((len(x),), t, device=x.device)
    out = network(x, timestep, None if condition is None else condition.value)
    if condition is None or scale == 1:
        return out
    unconditional = network(x, timestep, condition.null)
    return unconditional + scale * (out - unconditional)
