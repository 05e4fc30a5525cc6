"""Arms that can be timed in thin slices, and the pairing of slices: back to back, in an order drawn by a coin.

A slice is a few steps that are not timed and then one or a few timed ones, spread evenly over the arm's whole
trajectory from a random offset. The untimed ones warm the caches after the other arm: two, and on a CPU as many as fill
`WARM_S`, for after two a step of 4 ms still measured 4 % slower than in long runs, after eight it did not. The noise of
a pair hardly depends on how long its slices are, so thin slices, and many, are best. On a GPU a timed stretch begins on
an idle device, and so with the latency of a launch, which a loop hides: there it takes as many steps as fill
`STRETCH_S`. A row whose steps are of two kinds
(limited guidance) needs enough of them to be sampled in true proportion, and takes those of a kind together, each kind
after untimed steps of its own: a whole run changes kinds twice, not at every other step.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from bench.contenders import Advance, Contender, full_path
from bench.tally import Tally
from bench.workload import Workload
from sampler import precision, textbook
from sampler.guidance import Condition
from sampler.models import Model
from sampler.noise import GeneratorNoise, Noise, PhiloxNoise
from sampler.trajectory import Trajectory
from sampler.variants import Sampler, Variant, build, run

WARM_STEPS, MOST_WARM_STEPS = 2, 8  # of a slice (of each kind of its steps), untimed
WARM_S = 0.02  # which they fill on a CPU, where so many do
STRETCH_S, MOST_STRETCH_STEPS = 0.005, 50  # of timed steps of a kind, on a GPU
PROPORTION_STEPS = 5  # of any five evenly spread steps, limited guidance (40 % of the path) guides exactly two
PROBE_STEPS = 20  # length of the path on which a row is compared with the reference on the same noise

Peek = Callable[[], None]


def look_away() -> None:
    pass


@dataclass
class Arm:
    """A contender made ready on a model: what is timed."""

    contender: Contender
    model: Model
    condition: Condition | None
    guidance: float
    timesteps: tuple[int, ...]
    trajectory: Trajectory
    sampler: Sampler
    slice_steps: int = 1
    tally: Tally | None = None  # counts what its steps do
    warm_steps: int = WARM_STEPS
    at_once: int = 1  # steps that its walk takes at once, after what is left over: a graph over five

    def warm_for(self, step_s: float) -> None:
        """Take as many steps as one of so many wall seconds asks for: untimed ones on a CPU, timed ones on a GPU."""
        if self.model.device.type == "cuda":
            self.slice_steps = max(self.slice_steps, self._filling(step_s))
        else:
            self.warm_steps = min(MOST_WARM_STEPS, max(WARM_STEPS, math.ceil(WARM_S / step_s)))

    def _filling(self, step_s: float) -> int:
        """Timed steps of a slice in which every kind fills a stretch, in true proportion and by whole graphs."""
        guided = sum(self.guided) / self.steps
        rarest = min(guided, 1 - guided) or 1
        whole = self.at_once * (PROPORTION_STEPS if rarest < 1 else 1)
        steps = min(MOST_STRETCH_STEPS, math.ceil(STRETCH_S / step_s)) / rarest
        return whole * math.ceil(round(steps / whole, 6))

    @cached_property
    def loop(self) -> Advance | None:
        """Somebody else's loop on the row's own path, where the contender has one."""
        return self._loop_on(self.trajectory)

    def _loop_on(self, path: Trajectory) -> Advance | None:
        make = self.contender.loop
        return None if make is None else make(self.model, self.condition, self.guidance, path)

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def noise(self, seed: int, batch: int) -> Noise:
        """What the row is timed with: torch.Generator, or Philox where it draws its own."""
        if self.sampler.draws:
            return PhiloxNoise(seed, range(batch))
        return GeneratorNoise(torch.Generator(self.model.device).manual_seed(seed))

    def advance(self, x: Tensor, positions: list[int], noise: Noise, after_step=None) -> Tensor:
        """Take the steps at these positions of the row's own trajectory."""
        if self.tally is None:
            return self._advance(x, positions, noise, after_step)
        guided = self.guided
        with self.tally.of(self.contender.name, len(positions), sum(guided[i] for i in positions)):
            return self._advance(x, positions, noise, after_step)

    @cached_property
    def guided(self) -> list[bool]:
        """For each position, whether the step is guided."""
        if self.condition is None or self.guidance == 1:
            return [False] * self.steps
        if self.contender.variant.guides_everywhere:  # also a textbook's loop, which visits other timesteps
            return [True] * self.steps
        return self.contender.variant.guides(self.trajectory)

    def _advance(self, x: Tensor, positions: list[int], noise: Noise, after_step) -> Tensor:
        if self.contender.textbook:
            loop: Callable[..., Tensor] = textbook.textbook_ddpm
            extra: dict = {}
            if self.contender.textbook == "strided":
                loop, extra = textbook.textbook_strided, {"steps": self.trajectory.steps}
            with precision.full(self.model.network).context():  # in the reference's format, not cuDNN's default
                return loop(
                    self.model.network, x, self.model.schedule, noise, self.condition, self.guidance,
                    timesteps=[self.timesteps[i] for i in positions], after_step=after_step, **extra,
                )  # fmt: skip
        if self.loop is not None:
            with precision.full(self.model.network).context():
                return self.loop(x, positions, noise, after_step)
        return run(self.sampler, x, self.trajectory.at(positions), noise, after_step)

    def time_slice(self, x: Tensor, noise: Noise, clock, rng: random.Random, peek: Peek = look_away):
        """Seconds a step by both clocks, over one slice. peek: called while its untimed steps keep a device busy."""
        k = min(self.slice_steps, self.steps)
        offset = rng.random() * self.steps / k
        positions = [min(self.steps - 1, int(offset + i * self.steps / k)) for i in range(k)]
        taken: list[int] = []
        edges: dict[int, Any] = {}  # the steps after which a timed stretch begins or is over, and their marks
        stretches: list[tuple[int, int, int]] = []  # such a pair of steps, and for how many it stands
        for _, kind in groupby(sorted(positions, key=self.guided.__getitem__), key=self.guided.__getitem__):
            stretch = list(kind)
            count = math.ceil(len(stretch) / self.at_once) * self.at_once  # more than asked, for whole graphs
            taken += stretch[:1] * (self.warm_steps + count - len(stretch)) + stretch
            start, stop = len(taken) - 1 - count, len(taken) - 1
            edges |= {start: None, stop: None}
            stretches.append((start, stop, len(stretch)))

        def mark(i: int, _: Tensor) -> None:
            if i == 0:
                peek()
            if i in edges:
                edges[i] = clock.mark()

        self.advance(x, taken, noise, mark)
        decisive_s = wall_s = 0
        for start, stop, steps in stretches:
            reading = clock.between(edges[start], edges[stop])
            decisive_s += reading.decisive_s * steps / (stop - start)
            wall_s += reading.wall_s * steps / (stop - start)
        return decisive_s / k, wall_s / k

    @property
    def probe_path(self) -> Trajectory:
        """The short path on which the row is compared: of the reference's kind, or of its own where it says so."""
        path = self.contender.path if self.contender.probed_on_its_path else full_path
        timesteps = self.model.schedule.steps
        share = path(self.model, timesteps).steps / timesteps
        return path(self.model, min(timesteps, round(PROBE_STEPS / share)))

    def probe(self, x: Tensor, noise: Noise, path: Trajectory | None = None) -> Tensor:
        """Where the row's variant leads on a short path (its own by default); for comparing on the same noise."""
        path = self.probe_path if path is None else path
        if (loop := self._loop_on(path)) is not None:
            return loop(x, range(path.steps), noise)
        return run(self.sampler, x, path, noise)


@dataclass
class Stage:
    """A model with its batch, and the samplers already built for it (one a variant)."""

    workload: Workload
    model: Model
    batch: int
    share: bool = False  # let variants that differ only in where they guide share a compiled step
    built: dict[str, Sampler] = field(default_factory=dict)
    tally: Tally | None = None

    def __post_init__(self):
        labels = torch.arange(self.batch) % self.model.classes if self.model.classes else None
        self.condition = self.model.condition(labels)
        self.guidance = self.workload.guidance if self.model.guidable else 1.0
        self.x = PhiloxNoise(self.workload.seed, range(self.batch)).draw(
            self.model.schedule.steps,
            torch.empty(self.batch, *self.model.shape, device=self.model.device),
        )

    def arm(self, contender: Contender) -> Arm:
        """Build a contender; variants are built once and shared between rows that differ in the path."""
        name = contender.variant.name
        if name not in self.built:
            like = self._like(contender.variant) if self.share else None
            self.built[name] = build(contender.variant, self.model.network, self.condition, self.guidance, like)
        trajectory = contender.path(self.model, self.workload.steps)
        timesteps = trajectory.timesteps
        if contender.textbook == "ddpm":
            timesteps = tuple(range(self.model.schedule.steps - 1, -1, -1))
        if contender.textbook == "strided":
            timesteps = tuple(textbook.textbook_strided_timesteps(self.model.schedule, trajectory.steps))
        everywhere = contender.variant.guides_everywhere
        # a walk that takes several steps at once (a graph over five) is timed by whole ones
        at_once = getattr(self.built[name].guided, "steps", 1)
        return Arm(
            contender, self.model, self.condition, self.guidance, timesteps, trajectory, self.built[name],
            max(self.workload.slice_steps, at_once * (1 if everywhere else PROPORTION_STEPS)), self.tally,
            at_once=at_once,
        )  # fmt: skip

    def _like(self, variant: Variant) -> Sampler | None:
        """A sampler already built that differs from the variant only in where it guides."""
        for sampler in self.built.values():
            if replace(sampler.variant, name=variant.name, guided_between=variant.guided_between) == variant:
                return sampler
        return None

    def first_call_s(self, arm: Arm) -> float:
        """Wall seconds of the row's first steps of each kind (guided and not, where they differ), until it is ready.

        Three: `reduce-overhead` warms up in the first, records its graph in the second and replays it in the third;
        of a graph over five steps, as many as make it and the graph that takes what is left over.
        """
        start = time.perf_counter()
        first = {arm.guided.index(kind) for kind in arm.guided}
        of_a_kind = max(2, getattr(arm.sampler.guided, "steps", 1)) + 1
        arm.advance(self.x, sorted(of_a_kind * sorted(first)), arm.noise(0, self.batch))
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def time_pair(
    reference: Arm,
    contender: Arm,
    x: Tensor,
    noises,
    clock,
    rng: random.Random,
    peek: Peek = look_away,
) -> dict:
    """One slice of each arm, back to back, in an order drawn by a fair coin; `peek` looks at each while it warms up."""
    reference_first = rng.random() < 0.5
    arms = [(reference, noises[0]), (contender, noises[1])]
    timed = [arm.time_slice(x, noise, clock, rng, peek) for arm, noise in (arms if reference_first else arms[::-1])]
    if not reference_first:
        timed.reverse()
    (reference_s, reference_wall_s), (row_s, row_wall_s) = timed
    return {
        "reference_s": reference_s, "row_s": row_s, "reference_wall_s": reference_wall_s,
        "row_wall_s": row_wall_s, "reference_first": reference_first,
    }  # fmt: skip
