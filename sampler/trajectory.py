"""A sampler is a table: which timesteps are visited, and one row of coefficients for each.

Every sampler here is x0 = clamp(a·x - b·out, ±bound), x_s = c·x0 + g·x0_before + d·x + σ·z with other numbers.
ᾱ_t is `alphas_cumprod` at the current timestep, ᾱ_s at the next one, and ᾱ = 1 at the end. Only a solver with memory
has the column g: x0_before is the x0 of the step before.

Left out, for they are not this one definition: the third order of DPM-Solver++ (two estimates back), DEIS and PLMS
(what they remember is ε, so a step would hand on e·x0 + f·x), UniPC (a second state beside x), Heun (two network
calls a step).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sampler.errors import UsageError, unknown
from sampler.schedule import NoiseSchedule

COLUMNS = ("a", "b", "c", "d", "sigma", "bound", "g")  # g: where the trajectory has memory
C, G = COLUMNS.index("c"), COLUMNS.index("g")

# x0 = a·x - b·out, by what the network predicts, from √ᾱ (signal) and √(1-ᾱ) (noise)
PREDICTIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "epsilon": lambda signal, noise: (1 / signal, noise / signal),  # Ho et al. 2020, Eq. 4 solved
    "x0": lambda signal, noise: (torch.zeros_like(signal), -torch.ones_like(signal)),
    "v": lambda signal, noise: (signal, noise),  # Salimans & Ho 2022, appendix D
}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Timesteps in descending order and the table of coefficients, [steps, 6] float64, or 7 with memory.

    noise: the level σ = √(1-ᾱ)/√ᾱ at each timestep, [steps] float64; infinite where no signal is left.
    """

    name: str
    timesteps: tuple[int, ...]
    rows: Tensor
    train_steps: int
    noise: Tensor

    def __post_init__(self):
        if self.remembers and float(self.rows[0, G]) != 0.0:
            raise UsageError(f"{self.name}: the first step has none before it, so its g must be 0")

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @cached_property
    def stochastic(self) -> tuple[bool, ...]:
        """For each step, whether its noise has any weight; decided before the loop."""
        return tuple(float(sigma) != 0.0 for sigma in self.rows[:, 4])

    def tables(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Timesteps [steps] int64 and rows [steps, 6 or 7] float32 on the device."""
        return torch.tensor(self.timesteps, device=device), self.rows.to(device, torch.float32)

    @property
    def remembers(self) -> bool:
        """Whether a step reads the x0 estimate of the step before."""
        return self.rows.shape[1] > G

    def at(self, positions: slice | Sequence[int]) -> "Trajectory":
        """Some of the steps alone, by position in the table, for timing a part of a long loop.

        The first has none before it, and is of first order (g goes to c). Where positions jump, a row with memory
        reads what the step taken before it made: the same work, other numbers.
        """
        chosen = range(self.steps)[positions] if isinstance(positions, slice) else positions
        index = list(chosen)
        rows = self.rows[index]
        if self.remembers and index:
            rows[0, C], rows[0, G] = rows[0, C] + rows[0, G], 0.0
        timesteps = tuple(self.timesteps[i] for i in index)
        return replace(self, timesteps=timesteps, rows=rows, noise=self.noise[index])

    def first(self, steps: int) -> "Trajectory":
        """The first `steps` steps alone."""
        return self.at(slice(steps))


def all_timesteps(schedule: NoiseSchedule) -> tuple[int, ...]:
    """T-1, T-2, …, 0."""
    return tuple(range(schedule.steps - 1, -1, -1))


def leading(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Multiples of T // steps, from 0 up (diffusers' 'leading')."""
    return [i * (schedule.steps // steps) for i in range(steps)]


def trailing(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Equal strides from T-1 down; starts at the noisiest timestep.

    As diffusers' 'trailing' where `steps` divides T; elsewhere it visits exactly `steps` timesteps, diffusers
    sometimes one more.
    """
    return [round((i + 1) * schedule.steps / steps) - 1 for i in range(steps)]


def linspace(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Evenly from 0 to T-1, both included where steps > 1 (diffusers' 'linspace')."""
    if steps == 1:
        return [0]
    return [round(i * (schedule.steps - 1) / (steps - 1)) for i in range(steps)]


def logsnr(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Evenly in log σ, so in log-SNR, from T-1 to 0 (diffusers' `use_lu_lambdas` and `use_exponential_sigmas`)."""
    return _nearest(schedule, steps, lambda low, high, share: low + share * (high - low))


def karras(schedule: NoiseSchedule, steps: int, rho: float = 7.0) -> list[int]:
    """Evenly in σ^(1/ρ), from T-1 to 0 (Karras et al. 2022, Eq. 5; diffusers' `use_karras_sigmas`)."""

    def at(low: float, high: float, share: float) -> float:
        low, high = math.exp(low / rho), math.exp(high / rho)
        return rho * math.log(low + share * (high - low))

    return _nearest(schedule, steps, at)


def _nearest(schedule: NoiseSchedule, steps: int, at: Callable[[float, float, float], float]) -> list[int]:
    """The timesteps nearest to levels at(log σ of 0, of T-1, share of the way), ascending.

    Near the picture, levels can lie closer together than timesteps: there the next free timestep is taken.
    """
    levels = schedule.noise_levels.log()
    low, high = float(levels[0]), float(levels[-1])
    if math.isinf(high):
        raise UsageError(
            "the schedule ends at zero signal (β = 1), from where no steps can be spaced by noise level; "
            "use the spacing trailing or linspace"
        )
    if steps == 1:
        return [schedule.steps - 1]
    timesteps: list[int] = []
    for i in range(steps):
        nearest = int((levels - at(low, high, i / (steps - 1))).abs().argmin())
        free = timesteps[-1] + 1 if timesteps else 0
        timesteps.append(min(max(nearest, free), schedule.steps - (steps - i)))  # leave one for each that follows
    return timesteps


# exponential is k-diffusion's name for what Lu et al. (2022) call uniform in log-SNR
SPACINGS = {
    "leading": leading, "trailing": trailing, "linspace": linspace,
    "logsnr": logsnr, "exponential": logsnr, "karras": karras,
}  # fmt: skip


def spaced(schedule: NoiseSchedule, steps: int, spacing: str = "trailing") -> tuple[int, ...]:
    """Exactly `steps` of the schedule's timesteps, descending."""
    if not 1 <= steps <= schedule.steps:
        raise UsageError(f"steps = {steps} is outside 1…{schedule.steps}, the schedule's timesteps")
    if spacing not in SPACINGS:
        raise unknown("spacing", spacing, SPACINGS)
    return tuple(reversed(SPACINGS[spacing](schedule, steps)))


def ancestral(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | None = None,
    *,
    prediction: str = "epsilon",
    variance: str = "posterior",
    clip: float | None = 1.0,
) -> Trajectory:
    """DDPM's sampler (Ho et al. 2020, Eq. 6-7 and algorithm 2) on any subset of the timesteps.

    variance: 'posterior' (β̃, the variance when x0 is known) or 'beta' (β; 0 on the last step).
    clip: bound of the x0 estimate, None for none.
    """
    if variance not in ("posterior", "beta"):
        raise unknown("variance", variance, ("posterior", "beta"))
    timesteps, at, as_ = _signal(schedule, timesteps, prediction)
    alpha = at / as_
    beta = 1 - alpha
    c = as_.sqrt() * beta / (1 - at)
    d = alpha.sqrt() * (1 - as_) / (1 - at)
    sigma2 = beta * (1 - as_) / (1 - at) if variance == "posterior" else beta.clone()
    sigma2[-1] = 0.0
    return _trajectory("ancestral", schedule, timesteps, at, prediction, c, d, sigma2.sqrt(), clip)


def ddim(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | None = None,
    *,
    eta: float = 0.0,
    prediction: str = "epsilon",
    clip: float | None = 1.0,
) -> Trajectory:
    """DDIM(η) (Song et al. 2021, Eq. 12 and 16); η = 0 is deterministic, η = 1 is `ancestral`.

    The noise direction is recomputed from the clipped x0, as diffusers does with
    `use_clipped_model_output=True`.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta = {eta} is outside 0…1 (0: deterministic, 1: ancestral)")
    timesteps, at, as_ = _signal(schedule, timesteps, prediction)
    sigma2 = eta**2 * (1 - as_) / (1 - at) * (1 - at / as_)
    k = (1 - as_ - sigma2).clamp(min=0).sqrt()
    c = as_.sqrt() - k * at.sqrt() / (1 - at).sqrt()
    d = k / (1 - at).sqrt()
    return _trajectory(f"ddim(η={eta:g})", schedule, timesteps, at, prediction, c, d, sigma2.sqrt(), clip)


def strided(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | None = None,
    *,
    prediction: str = "epsilon",
    clip: float | None = 1.0,
) -> Trajectory:
    """Noise the x0 estimate afresh to the next level: c = √ᾱ_s, d = 0, σ² = 1 - ᾱ_s."""
    timesteps, at, as_ = _signal(schedule, timesteps, prediction)
    return _trajectory(
        "strided", schedule, timesteps, at, prediction,
        as_.sqrt(), torch.zeros_like(as_), (1 - as_).sqrt(), clip,
    )  # fmt: skip


def dpmpp_2m(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | None = None,
    *,
    prediction: str = "epsilon",
    clip: float | None = 1.0,
) -> Trajectory:
    """DPM-Solver++(2M), midpoint (Lu et al. 2022, "DPM-Solver++", algorithm 2; diffusers' `dpmsolver++` of order 2).

    The first and the last step are of first order, and that is DDIM(0). Its 'heun' form is left out: it differs in c
    and g alone. The extrapolated estimate is not clamped again.
    """
    timesteps, at, as_ = _signal(schedule, timesteps, prediction)
    # α_s φ with φ = 1 - e^(-h), and h = λ_s - λ_t > 0, where λ = ln(√ᾱ/√(1-ᾱ))
    weight = as_.sqrt() - (at * (1 - as_) / (1 - at)).sqrt()
    c, g = _extrapolated(weight, at, as_)
    d, sigma = ((1 - as_) / (1 - at)).sqrt(), torch.zeros_like(at)
    return _trajectory("dpm++2m", schedule, timesteps, at, prediction, c, d, sigma, clip, g)


def dpmpp_2m_sde(
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | None = None,
    *,
    prediction: str = "epsilon",
    clip: float | None = 1.0,
) -> Trajectory:
    """SDE-DPM-Solver++(2M), midpoint (Lu et al. 2022, "DPM-Solver++", appendix; diffusers' `sde-dpmsolver++`).

    As `dpmpp_2m`, with noise: its first order is `ancestral` with the posterior variance.
    """
    timesteps, at, as_ = _signal(schedule, timesteps, prediction)
    squeezed = at / as_ * (1 - as_) / (1 - at)  # e^(-2h)
    c, g = _extrapolated(as_.sqrt() * (1 - squeezed), at, as_)
    d = (at / as_).sqrt() * (1 - as_) / (1 - at)
    sigma = ((1 - as_) * (1 - squeezed)).sqrt()
    return _trajectory("dpm++2m-sde", schedule, timesteps, at, prediction, c, d, sigma, clip, g)


def _extrapolated(weight: Tensor, at: Tensor, as_: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of x0, shared out between this step's estimate (c) and the one before (g), along λ.

    x0 + (x0 - x0_before)/2r with r = (λ_t - λ_before)/(λ_s - λ_t); at the first and the last step x0 alone.
    """
    log_snr = (at / (1 - at)).log() / 2
    back = torch.zeros_like(at)
    if len(at) > 2:
        before, now, then = log_snr[:-2], log_snr[1:-1], (as_ / (1 - as_)).log()[1:-1] / 2
        back[1:-1] = (then - now) / (now - before) / 2  # 1/2r; 0 after a step from zero signal
    return weight * (1 + back), -weight * back


def _signal(schedule: NoiseSchedule, timesteps: Sequence[int] | None, prediction: str):
    """Checked timesteps, ᾱ_t and ᾱ_s, each [steps] float64; ᾱ_s ends at 1."""
    given = all_timesteps(schedule) if timesteps is None else timesteps
    timesteps = tuple(int(t) for t in given)
    for t, whole in zip(given, timesteps, strict=True):
        if t != whole:
            raise UsageError(f"timestep {t} is not a whole number")
    if not timesteps:
        raise UsageError("timesteps is empty; at least one is needed")
    if min(timesteps) < 0 or max(timesteps) >= schedule.steps:
        bad = next(t for t in timesteps if not 0 <= t < schedule.steps)
        raise UsageError(f"timestep {bad} is outside 0…{schedule.steps - 1}")
    for t, s in itertools.pairwise(timesteps):
        if s >= t:
            raise UsageError(f"timesteps must descend strictly, but {s} follows {t}")
    if prediction not in PREDICTIONS:
        raise unknown("prediction", prediction, PREDICTIONS)
    at = schedule.alphas_cumprod[list(timesteps)]
    if prediction == "epsilon" and float(at.min()) <= 0:
        raise UsageError(
            "the schedule ends at zero signal (β = 1), where x0 cannot be computed from ε; "
            "use a network that predicts v or x0, or leave the last timestep out"
        )
    return timesteps, at, torch.cat([at[1:], torch.ones(1, dtype=torch.float64)])


def _trajectory(name, schedule, timesteps, at, prediction, c, d, sigma, clip, g=None) -> Trajectory:
    if clip is not None and not clip > 0:
        raise UsageError(f"clip = {clip} must be a positive bound, or None for no clipping")
    a, b = PREDICTIONS[prediction](at.sqrt(), (1 - at).sqrt())
    bound = torch.full_like(a, float("inf") if clip is None else clip)
    rows = torch.stack([a, b, c, d, sigma, bound, *([] if g is None else [g])], dim=1)
    return Trajectory(name, timesteps, rows, schedule.steps, schedule.noise_levels[list(timesteps)])
