"""Layer 1, same sample and other rounding: how far a row leaves a float64 run of the same sampler on the same noise.

A row may err at every timestep at most `FACTOR` times as much as the reference in the row's own precision, plus a
measured floor: how far the reference itself moves when every step's input and prediction are rounded otherwise.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from bench.contenders import Contender, full_path
from bench.interleave import Stage
from sampler import precision
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import PhiloxNoise
from sampler.posterior import State, combine, posterior_of
from sampler.precision import Prepared
from sampler.trajectory import COLUMNS, Trajectory
from sampler.variants import REFERENCE, Sampler, Update, Variant, build, run

States = dict[int, Tensor]  # position in the trajectory -> state after that step

FACTOR, FACTOR_HALF = 2.0, 3.0  # as PyTorch's own benchmarks of compilers allow (float32 and half precision)
SHORT, SHORT_OF_FEWER = 25, 100  # steps asked for when every row is inspected; of a row that takes fewer than asked
FEWEST = 5  # steps compared of a row that takes fewer than asked, where its whole path has as many
EPSILON = 2.0**-23  # of float32, at the scale of a state: what one rounding may do


@dataclass(frozen=True)
class Divergence:
    """RMS errors against the float64 run after each step seen, in units of the pictures' range [-1, 1].

    error: the row's; own: the reference's in the row's precision; floor: what the last bit of every step does to the
    reference; repeats: the reference gave the same bits twice; same_bits: the row gave the reference's bits.
    table: how the row's table differs from the one it declares, steps: how many it did not take; '' if neither.
    """

    timesteps: tuple[int, ...]
    error: tuple[float, ...]
    own: tuple[float, ...]
    floor: tuple[float, ...]
    factor: float
    repeats: bool
    same_bits: bool
    table: str = ""
    steps: str = ""

    @property
    def bounds(self) -> list[float]:
        return [self.factor * own + floor + EPSILON for own, floor in zip(self.own, self.floor, strict=True)]

    @property
    def fault(self) -> str:
        """Why the row is not the same sample, in one sentence, or ''."""
        for different in (self.table, self.steps):
            if different:
                return f"layer 1 (same noise): {different}"
        if not self.repeats:
            return "layer 1 (same noise): the reference itself does not repeat its bits, so nothing can be compared"
        for t, error, own, bound in zip(self.timesteps, self.error, self.own, self.bounds, strict=True):
            if not error <= bound:
                return (
                    f"layer 1 (same noise): at timestep {t} it is {error:.2g} off a float64 run, where the reference "
                    f"in its precision is {own:.2g} off (allowed: {self.factor:g} times that and a floor, {bound:.2g})"
                )
        return ""

    @property
    def nearest(self) -> float:
        """Its largest share of the bound: beyond 1 it is at fault."""
        return max((e / b for e, b in zip(self.error, self.bounds, strict=True)), default=math.inf)

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Divergence":
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()
            if name in {field.name for field in fields(cls)}
        }
        return cls(**known)


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
        expected = path if declared is None else declared
        variant = sampler.variant
        own = replace(REFERENCE, precision=variant.precision, guided_between=variant.guided_between)
        truth = self._once(("truth", variant.guided_between), expected, lambda: self._truth(own, expected))
        kind = ("own", own.precision, own.guided_between)
        first, second, nudged = self._once(kind, expected, lambda: self._own(own, expected))
        if path.remembers:  # another picture before: what a row keeps of it shows in this one
            _collect(sampler, -self.start, path, self.noise)
        states = self._states(sampler, path)
        seen, last = [i for i in sorted(states) if i in truth], max(states, default=-1)
        half = variant.precision not in (precision.full, precision.tf32)
        return Divergence(
            timesteps=tuple(expected.timesteps[i] for i in seen),
            error=_rms(states, truth, seen),
            own=_rms(first, truth, seen),
            floor=_rms(first, nudged, seen),
            factor=FACTOR_HALF if half else FACTOR,
            repeats=_same(first, second),
            same_bits=bool(states) and _same(states, first),
            table=compare_tables(path, expected),
            steps="" if last == path.steps - 1 else f"of {path.steps} steps it came to the end of {last + 1}",
        )

    def _once(self, key: tuple, path: Trajectory, compute: Callable[[], Any]) -> Any:
        whole = (*key, path.timesteps, path.rows.numpy().tobytes())
        if whole not in self._known:
            self._known[whole] = compute()
        return self._known[whole]

    def _own(self, variant: Variant, path: Trajectory) -> tuple[States, States, States]:
        """The reference in a precision: twice, and once more with the last bit of every step's numbers changed."""
        sampler = build(variant, self.model.network, self.condition, self.guidance)
        moved = replace(
            variant,
            update=Update(lambda: _nudging(torch.Generator(self.model.device).manual_seed(0)), remembers=True),
        )
        nudged = build(moved, self.model.network, self.condition, self.guidance)
        return self._states(sampler, path), self._states(sampler, path), self._states(nudged, path)

    def _truth(self, variant: Variant, path: Trajectory) -> States:
        """The same sampler in float64 throughout: network, table and state; the noise is the same numbers."""
        exact = replace(variant, precision=lambda network: Prepared(network))
        network = copy.deepcopy(self.model.network).double()
        condition = self.condition
        if condition is not None and condition.value.is_floating_point():
            condition = Condition(condition.value.double(), condition.null.double())
        sampler = build(exact, network, condition, self.guidance)
        return _collect(sampler, self.start.double(), _Exact(path), _Widened(self.noise))

    def _states(self, sampler: Sampler, path: Trajectory) -> States:
        return _collect(sampler, self.start, path, self.noise)


def of_contender(stage: Stage, contender: Contender, sampler: Sampler) -> Divergence:
    """A built row on a short path of its own kind, and its whole table against the one that it declares.

    What claims to change no picture declares the reference's path.
    """
    model, asked = stage.model, stage.workload.steps
    own = contender.path(model, asked)
    if contender.lossless:
        path = full_path(model, min(asked, SHORT))
    elif own.steps >= asked:
        path = contender.path(model, min(asked, SHORT))
    else:  # however few were asked for: a single step from pure noise, nearly all clipped, compares a handful of pixels
        short = contender.path(model, min(model.schedule.steps, SHORT_OF_FEWER))
        path = short if short.steps >= FEWEST else contender.path(model, model.schedule.steps)
    compared = SameNoise(model, stage.condition, stage.guidance, stage.batch, stage.workload.seed)
    found = compared.divergence(sampler, path)
    return replace(found, table=compare_tables(own, full_path(model, asked))) if contender.lossless else found


def compare_tables(path: Trajectory, declared: Trajectory) -> str:
    """How a path differs from the declared one, bit for bit, in one sentence; '' where it does not."""
    if path.timesteps != declared.timesteps:
        missing = sorted(set(declared.timesteps) - set(path.timesteps), reverse=True)
        what = f"; timestep {missing[0]} is missing" if missing else ""
        return f"its path has {path.steps:,} steps, not the {declared.steps:,} declared{what}"
    if path.remembers != declared.remembers:
        has = ["no", "a"]
        return f"its table has {has[path.remembers]} column g, and the declared one {has[declared.remembers]}"
    different = (path.rows != declared.rows).nonzero()
    if not len(different):
        return ""
    i, j = different[0].tolist()
    return (
        f"its table differs from the declared one: {COLUMNS[j]} at timestep {path.timesteps[i]} is "
        f"{float(path.rows[i, j]):.9g} instead of {float(declared.rows[i, j]):.9g}"
    )


class _Exact(Trajectory):
    """A trajectory whose table reaches the device in float64."""

    def __init__(self, path: Trajectory):
        super().__init__(path.name, path.timesteps, path.rows, path.train_steps, path.noise)

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


def _nudging(generator: torch.Generator) -> Callable[..., State]:
    """The update with its state and prediction each moved by half a unit in the last place, up or down."""

    def nudge(x: Tensor) -> Tensor:
        signs = torch.randint(0, 2, x.shape, generator=generator, device=x.device) - 0.5
        return x * (1 + signs * EPSILON)

    return lambda state, out, z, row: posterior_of(state.each(nudge), nudge(combine(out).to(state.x.dtype)), z, row)


def _collect(sampler: Sampler, x: Tensor, path: Trajectory, noise) -> States:
    """The state after every step that can be seen (of several replayed at once, the last), in its own dtype."""
    states: States = {}
    run(sampler, x, path, noise, after_step=lambda i, state: states.update({i: state.detach().clone()}))
    return states


def _rms(one: States, other: States, at: list[int]) -> tuple[float, ...]:
    return tuple(float((one[i].double() - other[i].double()).square().mean().sqrt()) for i in at)


def _same(one: States, other: States) -> bool:
    """Bit for bit, wherever both were seen."""
    return all(torch.equal(one[i], other[i]) for i in one.keys() & other.keys())
