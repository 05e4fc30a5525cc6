"""Layer 1, same sample and other rounding: how far a row leaves a float64 run of the same sampler on the same noise.

A row may err at every timestep at most `FACTOR` times as much as the reference in the row's own precision, plus a
measured floor: how far the reference itself moves when its batch is summed in another order.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sampler import precision
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import PhiloxNoise
from sampler.precision import Prepared
from sampler.trajectory import Trajectory
from sampler.variants import REFERENCE, Sampler, Variant, build, run

FACTOR, FACTOR_HALF = 2.0, 3.0  # as PyTorch's own benchmarks of compilers allow (float32 and half precision)
EPSILON = 2.0**-23  # of float32, at the scale of a state: what one rounding may do


@dataclass(frozen=True)
class Divergence:
    """RMS errors against the float64 run after each step, in units of the pictures' range [-1, 1].

    error: the row's; own: the reference's in the row's precision; floor: what another order of summation does to
    the reference; repeats: the reference gave the same bits twice; same_bits: the row gave the reference's bits.
    """

    timesteps: tuple[int, ...]
    error: tuple[float, ...]
    own: tuple[float, ...]
    floor: tuple[float, ...]
    factor: float
    repeats: bool
    same_bits: bool
    table: str = ""  # how its table differs from the one it declares, or ''

    @property
    def bounds(self) -> list[float]:
        return [self.factor * own + floor + EPSILON for own, floor in zip(self.own, self.floor, strict=True)]

    @property
    def fault(self) -> str:
        """Why the row is not the same sample, in one sentence, or ''."""
        if self.table:
            return f"layer 1 (same noise): {self.table}"
        if not self.repeats:
            return "layer 1 (same noise): the reference itself does not repeat its bits, so nothing can be compared"
        for t, error, own, bound in zip(self.timesteps, self.error, self.own, self.bounds, strict=True):
            if not error <= bound:
                return (
                    f"layer 1 (same noise): at timestep {t} it is {error:.2g} off a float64 run, where the reference "
                    f"in its precision is {own:.2g} off (allowed: {self.factor:g} times that and a floor, {bound:.2g})"
                )
        return ""

    def json(self) -> dict[str, Any]:
        return {
            "timesteps": list(self.timesteps), "error": list(self.error), "own": list(self.own),
            "floor": list(self.floor), "factor": self.factor, "repeats": self.repeats, "same_bits": self.same_bits,
            "table": self.table,
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Divergence":
        lists = {name: tuple(stored[name]) for name in ("timesteps", "error", "own", "floor")}
        return cls(**{**stored, **lists})


class SameNoise:
    """A model with its condition and noise, on which rows are compared; truths are computed once for all rows."""

    def __init__(self, model: Model, condition: Condition | None, guidance: float, batch: int, seed: int = 0):
        self.model, self.condition, self.guidance, self.batch = model, condition, guidance, batch
        self.noise = PhiloxNoise(seed, range(batch))
        shape = torch.empty(batch, *model.shape, device=model.device)
        self.start = self.noise.draw(model.schedule.steps, shape)
        self._known: dict[tuple, Any] = {}

    def divergence(self, sampler: Sampler, path: Trajectory, declared: Trajectory | None = None) -> Divergence:
        """Run a built row on its path; declared: the path it says it takes, which must be the same to the last bit."""
        variant = sampler.variant
        own = replace(REFERENCE, precision=variant.precision, guided_between=variant.guided_between)
        expected = path if declared is None else declared
        truth = self._once(("truth", variant.guided_between), expected, lambda: self._truth(own, expected))
        reference = self._once(("own", own.precision, own.guided_between), expected, lambda: self._own(own, expected))
        states = self._states(sampler, path)
        half = variant.precision not in (precision.full, precision.tf32)
        return Divergence(
            timesteps=expected.timesteps,
            error=_rms(states, truth),
            own=_rms(reference[0], truth),
            floor=_rms(reference[0], reference[2]),
            factor=FACTOR_HALF if half else FACTOR,
            repeats=_same(reference[0], reference[1]),
            same_bits=_same(states, reference[0]),
            table="" if declared is None else compare_tables(path, declared),
        )

    def _once(self, key: tuple, path: Trajectory, compute: Callable[[], Any]) -> Any:
        whole = (*key, path.timesteps, path.rows.numpy().tobytes())
        if whole not in self._known:
            self._known[whole] = compute()
        return self._known[whole]

    def _own(self, variant: Variant, path: Trajectory) -> tuple[list[Tensor], ...]:
        """The reference in a precision: twice, and once more with its batch doubled, which sums in another order."""
        sampler = build(variant, self.model.network, self.condition, self.guidance)
        doubled = None
        if self.condition is not None:
            doubled = Condition(self.condition.value.repeat(_ones(2, self.condition.value)),
                                self.condition.null.repeat(_ones(2, self.condition.null)))  # fmt: skip
        wide = build(variant, self.model.network, doubled, self.guidance)
        noise = PhiloxNoise(self.noise.seed, [*self.noise.sample_ids] * 2)
        twice = _collect(wide, torch.cat([self.start, self.start]), path, noise)
        return self._states(sampler, path), self._states(sampler, path), [s[: self.batch] for s in twice]

    def _truth(self, variant: Variant, path: Trajectory) -> list[Tensor]:
        """The same sampler in float64 throughout: network, table and state; the noise is the same numbers."""
        exact = replace(variant, precision=lambda network: Prepared(network))
        network = copy.deepcopy(self.model.network).double()
        condition = self.condition
        if condition is not None and condition.value.is_floating_point():
            condition = Condition(condition.value.double(), condition.null.double())
        sampler = build(exact, network, condition, self.guidance)
        return _collect(sampler, self.start.double(), _Exact(path), _Widened(self.noise))

    def _states(self, sampler: Sampler, path: Trajectory) -> list[Tensor]:
        return _collect(sampler, self.start, path, self.noise)


def compare_tables(path: Trajectory, declared: Trajectory) -> str:
    """How a path differs from the declared one, bit for bit, in one sentence; '' where it does not."""
    if path.timesteps != declared.timesteps:
        missing = sorted(set(declared.timesteps) - set(path.timesteps), reverse=True)
        what = f"; timestep {missing[0]} is missing" if missing else ""
        return f"its path has {path.steps} steps where {declared.steps} are declared, or others{what}"
    different = (path.rows != declared.rows).nonzero()
    if not len(different):
        return ""
    i, j = different[0].tolist()
    name = ("a", "b", "c", "d", "sigma", "bound")[j]
    return (
        f"its table differs from the declared one: {name} at timestep {path.timesteps[i]} is "
        f"{float(path.rows[i, j]):.9g} instead of {float(declared.rows[i, j]):.9g}"
    )


class _Exact(Trajectory):
    """A trajectory whose table reaches the device in float64."""

    def __init__(self, path: Trajectory):
        super().__init__(path.name, path.timesteps, path.rows, path.train_steps)

    def tables(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.timesteps, device=device), self.rows.to(device)


@dataclass(frozen=True)
class _Widened:
    """The float32 noise's numbers, in the dtype that is asked for."""

    noise: PhiloxNoise

    def draw(self, step: int, like: Tensor) -> Tensor:
        return self.noise.draw(step, like.float()).to(like.dtype)

    def select(self, start: int, stop: int) -> "_Widened":
        return _Widened(self.noise.select(start, stop))


def _collect(sampler: Sampler, x: Tensor, path: Trajectory, noise) -> list[Tensor]:
    """The state after every step, in its own dtype."""
    states: list[Tensor] = []
    run(sampler, x, path, noise, after_step=lambda i, state: states.append(state.detach().clone()))
    return states


def _rms(one: list[Tensor], other: list[Tensor]) -> tuple[float, ...]:
    """Per step; where one path lacks steps, its last state stands for them."""
    padded = [*one, *[one[-1]] * (len(other) - len(one))][: len(other)]
    return tuple(float((a.double() - b.double()).square().mean().sqrt()) for a, b in zip(padded, other, strict=True))


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _ones(first: int, value: Tensor) -> tuple[int, ...]:
    return (first, *[1] * (value.ndim - 1))
