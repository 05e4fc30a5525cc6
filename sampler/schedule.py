"""Noise schedules: how much noise each of the T timesteps adds, decided once in float64."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sampler.errors import UsageError


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process q(x_t | x_{t-1}) = N(√(1-β_t) x_{t-1}, β_t I) for t in 0…T-1.

    betas: [T] float64, each in (0, 1]. β = 1 (zero terminal signal) is allowed on the last step
    only, and then only for networks that predict v or x0.
    """

    betas: Tensor

    def __post_init__(self):
        betas = self.betas
        if betas.dim() != 1 or len(betas) < 1:
            raise UsageError(f"betas must be a vector of at least one number, got shape {list(betas.shape)}")
        bad = ~((betas > 0) & (betas < 1))
        bad[-1] &= bool(betas[-1] != 1)
        if bad.any():
            i = int(bad.nonzero()[0])
            raise UsageError(
                f"betas[{i}] = {float(betas[i])} is outside (0, 1); every beta must lie strictly between "
                "0 and 1 (the last may be exactly 1 for networks that predict v or x0)"
            )
        if float(1.0 - (1.0 - betas[0])) == 0.0:
            raise UsageError(f"betas[0] = {float(betas[0])} is lost in rounding: 1 - beta is 1 in float64")

    @property
    def steps(self) -> int:
        """T, the number of timesteps the network was trained on."""
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t = Π_{i≤t} (1-β_i), [T] float64 (Ho et al. 2020, below Eq. 4)."""
        return torch.cumprod(1.0 - self.betas, dim=0)

    @cached_property
    def noise_levels(self) -> Tensor:
        """σ_t = √(1-ᾱ_t)/√ᾱ_t, the noise that the signal carries, [T] float64 (Karras et al. 2022); ∞ at no signal."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_t given x0 [B, ...], t [B] and standard normal noise (Ho et al. 2020, Eq. 4)."""
        shape = (-1,) + (1,) * (x0.dim() - 1)
        alphas_cumprod = self.alphas_cumprod.to(x0.device)[t]
        signal = alphas_cumprod.sqrt().to(x0.dtype).reshape(shape)
        sigma = (1 - alphas_cumprod).sqrt().to(x0.dtype).reshape(shape)
        return signal * x0 + sigma * noise


def linear(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
    """Betas evenly spaced from start to end (Ho et al. 2020, section 4)."""
    _check_steps(steps)
    return NoiseSchedule(torch.linspace(start, end, steps, dtype=torch.float64))


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """ᾱ follows a squared cosine (Nichol & Dhariwal 2021, Eq. 17); betas are capped at max_beta."""
    _check_steps(steps)
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    alphas_cumprod = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return NoiseSchedule((1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=max_beta))


def from_betas(betas) -> NoiseSchedule:
    """A schedule from your own betas: any sequence or tensor of T numbers in (0, 1)."""
    return NoiseSchedule(torch.as_tensor(betas, dtype=torch.float64).clone())


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UsageError(f"a schedule needs at least 1 timestep, got {steps}")
