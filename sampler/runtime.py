"""How steps are executed: one by one, eagerly or compiled by Inductor (`sampler.graphs`: as replayed CUDA graphs).

A runtime takes a step, step(state, noise, t, row) -> next state, and says how a leg of such steps is walked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.frozen_cache import keep_frozen_code
from sampler.guidance import Predict
from sampler.noise import NoiseKey
from sampler.posterior import State

AfterStep = Callable[[int, Tensor], None]  # after(position in the trajectory, x)


@dataclass(frozen=True, eq=False)
class Leg:
    """A stretch of consecutive steps of one kind, decided before the loop.

    first: its position in the trajectory; ts: [n] int64 and rows: [n, 6 or 7] float32, on the device;
    noise(timestep, x): the noise of a step [B, C, H, W], or its key where the update draws.
    """

    first: int
    timesteps: tuple[int, ...]
    ts: Tensor
    rows: Tensor
    noise: Callable[[int, Tensor], Tensor | NoiseKey]


@dataclass(frozen=True, eq=False)
class Step:
    """The seams inside a runtime, nested: update(predict(x, t))."""

    predict: Predict
    apply: Callable[..., State]  # apply(state, out, noise, row) -> next state
    in_place: bool = False  # apply takes a destination, which may be the state

    def __call__(self, state: State, noise: Tensor | NoiseKey, t: Tensor, row: Tensor) -> State:
        return self.apply(state, self.predict(state, t), noise, row)

    def advance(self, state: State, noise: Tensor | NoiseKey, t: Tensor, row: Tensor) -> None:
        """Overwrite a state with its successor."""
        if self.in_place:
            self.apply(state, self.predict(state, t), noise, row, state)
        else:
            for old, new in zip(state.parts, self(state, noise, t, row).parts, strict=True):
                old.copy_(new)


Walk = Callable[[State, Leg, AfterStep], State]
Runtime = Callable[[Step], Walk]


def eager(step: Step) -> Walk:
    """The step as it is, once for each row; an update that can writes over the state, which the loop owns."""

    def overwriting(state: State, noise: Tensor | NoiseKey, t: Tensor, row: Tensor) -> State:
        step.advance(state, noise, t, row)
        return state

    return one_by_one(overwriting if step.in_place else step)


def one_by_one(step: Callable[..., State]) -> Walk:
    """step(state, noise, t, row) -> next state, once for each row."""

    def walk(state: State, leg: Leg, after: AfterStep) -> State:
        for i, (timestep, t, row) in enumerate(zip(leg.timesteps, leg.ts.split(1), leg.rows.unbind(), strict=True)):
            state = step(state, leg.noise(timestep, state.x), t, row)
            after(leg.first + i, state.x)
        return state

    return walk


def compiled(step: Step) -> Walk:
    """`torch.compile` of the whole step; with CUDA graphs (`reduce-overhead`) on a GPU.

    The output of a replayed graph is overwritten by the next replay, and a sampler feeds its output
    back in, so there it is cloned (PyTorch #152887); the clone is part of the timed step. A graph that
    was skipped, or a step that was compiled anew in the loop, is an error.
    """
    fast = torch.compile(_function(step), mode="reduce-overhead", dynamic=False, fullgraph=True)
    plain = torch.compile(_function(step), dynamic=False, fullgraph=True)

    def run(state: State, noise: Tensor, t: Tensor, row: Tensor) -> State:
        if state.x.is_cuda:
            return fast(state, noise, t, row).each(Tensor.clone)
        return plain(state, noise, t, row)

    return _watched(run)


def compiled_frozen(step: Step) -> Walk:
    """`compiled`, with weights as constants that Inductor may fold and pack ('freezing').

    The weights of the moment of compilation are used from then on. Both settings are needed: the option
    alone comes too late for the tracer, and no weight is frozen; without it, `compiled` and this would be
    one to the tracer's cache, and whichever ran first would run for both. The next process with the same weights
    finds the code again (see `sampler.frozen_cache`).
    """
    import torch._inductor.config as inductor  # two seconds, for those who compile

    keep_frozen_code()
    options: dict[str, str | int | bool | Callable] = {"freezing": True}
    frozen = torch.compile(_function(step), options=options, dynamic=False, fullgraph=True)

    def run(state: State, noise: Tensor, t: Tensor, row: Tensor) -> State:
        before, inductor.freezing = inductor.freezing, True
        try:
            return frozen(state, noise, t, row)
        finally:
            inductor.freezing = before

    return _watched(run)


def _function(step: Step) -> Callable[..., State]:
    """A plain function, as the compiler likes best.

    Its code object is its own: Dynamo keeps what it compiled by code object, eight pieces at most, so that
    the ninth sampler of a process would be refused as a recompilation of the first.
    """
    predict, apply = step.predict, step.apply

    def call(state: State, noise: Tensor, t: Tensor, row: Tensor) -> State:
        return apply(state, predict(state, t), noise, row)

    call.__code__ = call.__code__.replace()
    return call


@dataclass(frozen=True)
class CompilerCounts:
    """What the compiler has done in this process so far."""

    graphs: int
    breaks: int
    skipped_cuda_graphs: int

    @classmethod
    def now(cls) -> "CompilerCounts":
        from torch._dynamo.utils import counters

        return cls(
            counters["stats"]["unique_graphs"],
            sum(counters["graph_break"].values()),
            counters["inductor"]["cudagraph_skips"],
        )

    def faults(self, earlier: "CompilerCounts", warm: bool = True) -> list[str]:
        """What went wrong since; warm: everything had been compiled already, so no new graph is due."""
        found = []
        if self.breaks > earlier.breaks:
            found.append(f"{self.breaks - earlier.breaks} graph breaks")
        if self.skipped_cuda_graphs > earlier.skipped_cuda_graphs:
            found.append(f"{self.skipped_cuda_graphs - earlier.skipped_cuda_graphs} CUDA graphs skipped")
        if warm and self.graphs > earlier.graphs:
            found.append(f"{self.graphs - earlier.graphs} recompilations")
        return found


def _watched(step: Callable[..., State]) -> Walk:
    """A compiled step, one by one: what the compiler did besides the one compilation of each shape is an error."""
    known: set[tuple] = set()
    walk = one_by_one(step)

    def watched(state: State, leg: Leg, after: AfterStep) -> State:
        key = tuple((part.shape, part.dtype, part.device) for part in state.parts)
        start = CompilerCounts.now()
        compiled_by: list[CompilerCounts] = [start] if key in known else []

        def look(i: int, x: Tensor) -> None:
            if not compiled_by:  # the first step of a new shape is where compiling is due
                compiled_by.append(CompilerCounts.now())
            after(i, x)

        state = walk(state, leg, look)
        now = CompilerCounts.now()
        faults = dict.fromkeys([*now.faults(start, warm=False), *now.faults(compiled_by[0])])
        if faults:
            raise RuntimeError(f"the compiled step did not run as one compiled piece: {', '.join(faults)} in the loop")
        known.add(key)
        return state

    return watched
