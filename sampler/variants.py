"""Read this first: how five seams become a sampling loop.

    runtime(  update(  guide(  precision(  layout(  network  )  )  )  )  )

Every acceleration acts at one seam. A `Variant` names only where it differs from the reference, and
`build` nests the seams in this one order, so no combination can silently lose a part.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from sampler import graphs, guidance, precision, runtime
from sampler.errors import NonFiniteError, UsageError, unknown
from sampler.guidance import Condition, Guide, Predict
from sampler.noise import Noise, NoiseKey, PhiloxNoise
from sampler.posterior import Feed, Guided, State, combine, posterior_of
from sampler.precision import Layout, Precision
from sampler.runtime import AfterStep, Leg, Runtime, Step, Walk
from sampler.trajectory import Trajectory

Apply = Callable[..., Any]  # see `Update`


@dataclass(frozen=True)
class Update:
    """The arithmetic of a step: how to load it, and what it takes from the seams around it.

    It is apply(x, out, noise, row) -> x_next, of tensors. draws: its noise is a `NoiseKey`, and it draws its own.
    remembers: it takes and returns a `State` instead, and hands the x0 estimate on where a trajectory has memory.
    feeds: likewise, and it also writes what the network reads next. in_place: it takes a destination as a fifth
    argument, which may be what it reads. opaque: a kernel of ours, which a compiler cannot see into. needs: a device
    type, or ''.
    """

    load: Callable[[], Apply]
    draws: bool = False
    feeds: bool = False
    in_place: bool = False
    opaque: bool = False
    needs: str = ""
    remembers: bool = False

    def of_states(self) -> Callable[..., State]:
        """Loaded, as a step applies it: apply(state, out, noise, row) -> next state."""
        apply = self.load()
        if self.remembers or self.feeds:
            return apply

        def of_tensors(state: State, out: Tensor | Guided, noise: Any, row: Tensor, *destination: State) -> State:
            return State(apply(state.x, out, noise, row, *(one.x for one in destination)))

        return of_tensors


def _compiled() -> Apply:
    """`posterior_of` by Inductor, in a code object of its own: see `runtime._function`."""

    def apply(state: State, out: Tensor | Guided, z: Tensor, row: Tensor) -> State:
        return posterior_of(state, out, z, row)

    apply.__code__ = apply.__code__.replace()
    return torch.compile(apply, fullgraph=True, dynamic=False)


def _native_drawn() -> Apply:
    from kernels import native

    def apply(
        state: State, out: Tensor | Guided, key: NoiseKey, row: Tensor, destination: State | None = None
    ) -> State:
        to = state.empty_like() if destination is None else destination
        native.native_posterior_drawn(
            state.x, out, int(key.seed), key.sample_ids, int(key.step), row, to.x, state.before, to.before
        )
        return to

    return apply


def _native() -> Apply:
    from kernels import native

    def apply(state: State, out: Tensor | Guided, z: Tensor, row: Tensor, destination: State | None = None) -> State:
        to = state.empty_like() if destination is None else destination
        native.native_posterior(state.x, out, z, row, to.x, state.before, to.before)
        return to

    return apply


def _fused() -> Apply:
    from kernels import fused_posterior

    return _into_memory(fused_posterior.fused_posterior)


def _fused_drawn() -> Apply:
    from kernels import fused_posterior

    return _into_memory(fused_posterior.fused_posterior_drawn)


def _into_memory(kernel: Callable[..., Tensor]) -> Apply:
    """A Triton kernel, which writes each part of the next state in one pass, where it is told to."""

    def apply(state: State, out: Tensor | Guided, noise: Any, row: Tensor, destination: State | None = None) -> State:
        to = state.empty_like() if destination is None else destination
        kernel(state.x, out, noise, row, to.x, before=state.before, x0=to.before, feed=to.input)
        return to

    return apply


def _combined_first() -> Apply:
    fused = _fused()
    return lambda state, out, z, row: fused(state, combine(out), z, row)


def _kernel_noise() -> Apply:
    from kernels import fused_posterior

    return lambda state, out, key, row: posterior_of(state, out, fused_posterior.fused_normal(key, state.x), row)


plain_update = Update(lambda: posterior_of, remembers=True)
# the definition of every update that draws
drawn_update = Update(
    lambda: lambda state, out, key, row: posterior_of(state, out, key.draw(state.x), row), draws=True, remembers=True
)
compiled_update = Update(_compiled, remembers=True)
# one pass of C++ over a CPU's memory, with noise read, or drawn in registers
native_update = Update(_native, in_place=True, opaque=True, needs="cpu", remembers=True)
native_drawn_update = Update(_native_drawn, draws=True, in_place=True, opaque=True, needs="cpu", remembers=True)
# Triton (CUDA), each doing one thing more in the same pass: the update with noise read from memory; it combines
# the halves of the guidance; it draws its noise; it writes the network's next input
fused_update = Update(_combined_first, opaque=True, needs="cuda", remembers=True)
fused_guided_update = Update(_fused, in_place=True, opaque=True, needs="cuda", remembers=True)
fused_drawn_update = Update(_fused_drawn, draws=True, in_place=True, opaque=True, needs="cuda", remembers=True)
fused_fed_update = Update(
    _fused_drawn, draws=True, feeds=True, in_place=True, opaque=True, needs="cuda", remembers=True
)
# the definition, its noise drawn into memory by one kernel: for graphs, which cannot ask a torch.Generator
kernel_noise_update = Update(_kernel_noise, draws=True, opaque=True, needs="cuda", remembers=True)

EVERYWHERE = (0.0, math.inf)
COMPILES_UPDATE = (runtime.compiled, runtime.compiled_frozen)
READS_THE_STATE = (precision.full, precision.tf32)


@dataclass(frozen=True)
class Variant:
    """One way to run the sampler; the defaults are the reference."""

    name: str
    layout: Layout = precision.contiguous
    precision: Precision = precision.full
    guide: Guide = guidance.sequential_cfg
    update: Update = plain_update
    runtime: Runtime = runtime.eager
    guided_between: tuple[float, float] = EVERYWHERE  # guide while lo < σ <= hi, noise over signal
    needs: str = ""  # what it cannot run without: 'cuda', 'cpu' (and not a GPU) or ''

    def __post_init__(self):
        for reason in self._misfits():
            raise UsageError(f"variant {self.name!r}: {reason}")

    def _misfits(self):
        """Why these seams do not fit together, each in a sentence."""
        low, high = self.guided_between
        if not 0 <= low < high:
            yield f"guided_between {self.guided_between} is no interval of noise levels, which are 0…inf"
        if self.runtime in COMPILES_UPDATE and self.update.opaque:
            yield ("a compiled step cannot contain a kernel of ours; its update is already fused by the compiler "
                   "(graphs.graphed_compiled compiles the prediction alone)")  # fmt: skip
        if self.captures and not self.update.draws:
            yield ("a captured step cannot ask a source of noise outside the graph; give it an update that draws "
                   "its own, such as fused_drawn_update")  # fmt: skip
        if self.captures and self.needs != "cuda":
            yield "CUDA graphs need CUDA: say needs='cuda'"
        if self.update.needs and self.update.needs != self.needs:
            yield f"its update needs {self.update.needs!r}, so it does too: say needs={self.update.needs!r}"
        if self.update.feeds and self.precision in READS_THE_STATE and self.guide is not guidance.batched_cfg:
            yield ("there is nothing to feed: this network reads the state as it is; guide by batched_cfg, or cast "
                   "the weights")  # fmt: skip

    @property
    def guides_everywhere(self) -> bool:
        return self.guided_between == EVERYWHERE

    def guides(self, trajectory: Trajectory) -> list[bool]:
        """For each step, whether its noise level lies where guidance is on."""
        low, high = self.guided_between
        return [low < level <= high for level in trajectory.noise.tolist()]

    @property
    def captures(self) -> bool:
        """Whether the loop replays a graph of ours, whose noise must come from inside."""
        return getattr(self.runtime, "__module__", "") == graphs.__name__


@dataclass(frozen=True, eq=False)
class Sampler:
    """A variant built for one network and condition: its walks, their context and their predictions."""

    variant: Variant
    guided: Walk
    conditional: Walk  # the walk where guidance is off
    context: Callable[[], AbstractContextManager]
    predict_guided: Predict
    predict_conditional: Predict
    feed: Feed | None = None  # the form in which an update that feeds the network writes its input

    @property
    def draws(self) -> bool:
        return self.variant.update.draws

    def rebind(self, condition: Condition | None) -> None:
        """Go on with another condition of the same shape; nothing is compiled or captured anew."""
        if condition is not None:
            self.predict_guided.rebind(condition)
            self.predict_conditional.rebind(condition)

    def predictions(self, trajectory: Trajectory) -> list[Predict]:
        """The prediction inside each step."""
        return [self.predict_guided if on else self.predict_conditional for on in self._guidance(trajectory)]

    def legs(self, trajectory: Trajectory, noise: Noise, x: Tensor) -> list[tuple[Walk, Leg]]:
        """The loop as stretches of steps of one kind: guided or not, with noise or without."""
        if trajectory.remembers and not self.variant.update.remembers:
            raise UsageError(
                f"{trajectory.name} reads the x0 estimate of the step before, which the update of variant "
                f"{self.variant.name!r} does not keep; use a variant whose update does, such as 'reference', or a "
                "sampler without memory"
            )
        timesteps, rows = trajectory.tables(x.device)
        still = torch.zeros_like(x)  # stands in for the noise where its weight is zero
        sources: dict[bool, Callable] = {True: noise.draw, False: lambda timestep, x: still}
        if self.draws:
            if not isinstance(noise, PhiloxNoise):
                raise UsageError(f"variant {self.variant.name!r} draws its own noise and needs a PhiloxNoise source")
            sources = dict.fromkeys((True, False), _keys(noise, trajectory.timesteps, timesteps, x))
        noisy = [self.draws or stochastic for stochastic in trajectory.stochastic]
        legs = []
        for (guided, with_noise), group in groupby(
            range(trajectory.steps), list(zip(self._guidance(trajectory), noisy)).__getitem__
        ):
            at = list(group)
            part = slice(at[0], at[-1] + 1)
            leg = Leg(at[0], trajectory.timesteps[part], timesteps[part], rows[part], sources[with_noise])
            legs.append((self.guided if guided else self.conditional, leg))
        return legs

    def _guidance(self, trajectory: Trajectory) -> list[bool]:
        return self.variant.guides(trajectory)


def _keys(noise: PhiloxNoise, steps: Sequence[int], ts: Tensor, x: Tensor) -> Callable[[int, Tensor], NoiseKey]:
    """The key of each timestep; on a GPU its words are there before the loop, so that none is copied in it."""
    key = noise.key(0, x)
    if not x.is_cuda:
        return lambda timestep, x: key._replace(step=timestep)
    key, on_device = key.on(x.device), dict(zip(steps, ts.split(1), strict=True))
    return lambda timestep, x: key._replace(step=on_device[timestep])


def build(
    variant: Variant,
    network: nn.Module,
    condition: Condition | None = None,
    scale: float = 1.0,
    like: Sampler | None = None,
) -> Sampler:
    """Nest the seams of a variant around a network, for a condition and a guidance scale.

    like: a sampler built for the same network, condition and scale whose variant differs from this one
    only in where it guides; its guided walk is used again instead of being compiled once more.
    """
    if like is not None and replace(like.variant, name=variant.name, guided_between=variant.guided_between) != variant:
        raise UsageError(f"variants {variant.name!r} and {like.variant.name!r} differ in more than where they guide")
    prepared = variant.precision(variant.layout(network))
    apply = variant.update.of_states()
    predict = variant.guide(prepared.network, condition, float(scale))

    def walk_with(predict: Predict) -> Walk:
        return variant.runtime(Step(predict, apply, variant.update.in_place))

    guided = walk_with(predict) if like is None else like.guided
    everywhere = variant.guides_everywhere or scale == 1
    alone = predict if everywhere else variant.guide(prepared.network, condition, 1.0)
    conditional = guided if everywhere else walk_with(alone)
    # a step without guidance reads the first of two copies, so the input always holds what the most need
    feed = Feed(max(predict.copies, alone.copies), prepared.reads) if variant.update.feeds else None
    return Sampler(variant, guided, conditional, prepared.context, predict, alone, feed)


def run(
    sampler: Sampler,
    x: Tensor,
    trajectory: Trajectory,
    noise: Noise,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Take x [B, C, H, W] from the first timestep of the trajectory to the end, and return it.

    after_step(i, x), if given, is called with the state after step i (where several are replayed at once, after
    the last of them); its x is good until the next step. The loop asks the device nothing.
    """
    after = after_step or (lambda i, x: None)
    with torch.inference_mode(), sampler.context():
        # made in inference mode, as every later x and z is: to torch.compile others would be another type
        x = x.clone()
        before = torch.zeros_like(x) if trajectory.remembers else None  # what the first step reads has no weight
        state = State(x, before, sampler.feed.of(x) if sampler.feed else None)
        for walk, leg in sampler.legs(trajectory, noise, x):
            state = walk(state, leg, after)
    return state.x


def check_guided(variant: Variant, trajectory: Trajectory, scale: float) -> None:
    """UsageError where guidance is asked for, and the steps are so few that none lies where the variant guides."""
    if scale != 1 and not any(variant.guides(trajectory)):
        low, high = variant.guided_between
        raise UsageError(
            f"variant {variant.name!r} guides where {low:g} < σ <= {high:g} alone, and that is no step of "
            f"{trajectory.steps}; take more steps, or a variant that guides everywhere, such as 'batched-cfg'"
        )


def find_first_nonfinite(sampler: Sampler, x: Tensor, trajectory: Trajectory, noise: Noise) -> NonFiniteError:
    """Walk the loop again, looking after every step, and say where the numbers broke.

    An infinite prediction that the clamp of x0 takes in leaves a finite state, as in every clipped DDPM sampler, and
    is not seen here; NaN passes the clamp and is.
    """

    class Found(Exception):
        pass

    at = trajectory.steps - 1

    def look(i: int, x: Tensor) -> None:
        nonlocal at
        if not bool(torch.isfinite(x).all()):
            at = i
            raise Found

    with suppress(Found):
        run(sampler, x, trajectory, noise, after_step=look)
    t = trajectory.timesteps[at]
    return NonFiniteError(
        f"the network returned NaN or infinity at step {at + 1} of {trajectory.steps} (timestep {t}) with "
        f"variant {sampler.variant.name!r}; check its weights, or use a wider number format",
        step=at,
    )


REFERENCE = Variant("reference")
# Guidance at middle noise levels only, near the interval (0.28, 2.9] of Kynkäänniemi et al. (2024, "Applying guidance
# in a limited interval"): on the linear schedule of 1,000 timesteps it is t = 70…469
LIMITED = (0.24, 2.92)
BF16, FP16 = torch.bfloat16, torch.float16

_ALL = [
    REFERENCE,
    Variant("batched-cfg", guide=guidance.batched_cfg),
    Variant("channels-last", layout=precision.channels_last),
    Variant("tf32", precision=precision.tf32, needs="cuda"),
    Variant("autocast-bf16", precision=precision.autocast(BF16)),
    Variant("autocast-fp16", precision=precision.autocast(FP16), needs="cuda"),
    Variant("cast-bf16", precision=precision.cast(BF16)),
    Variant("cast-fp16", precision=precision.cast(FP16), needs="cuda"),
    Variant("limited-guidance", guided_between=LIMITED),
    Variant("compiled-update", update=compiled_update),
    Variant("native-update", update=native_drawn_update, needs="cpu"),
    Variant("fused-update", update=fused_update, needs="cuda"),
    Variant("fused-guided", update=fused_guided_update, needs="cuda"),
    Variant("fused-drawn", update=fused_drawn_update, needs="cuda"),
    Variant("fused-fed", guide=guidance.batched_cfg, update=fused_fed_update, needs="cuda"),
    Variant("compiled", runtime=runtime.compiled),
    Variant("cuda-graph", update=kernel_noise_update, runtime=graphs.graphed, needs="cuda"),
    Variant("cuda-graph-5", update=kernel_noise_update, runtime=graphs.graphed_over(5), needs="cuda"),
    Variant("fused-graph", update=fused_drawn_update, runtime=graphs.graphed, needs="cuda"),
    Variant("compiled-graph", update=fused_drawn_update, runtime=graphs.graphed_compiled, needs="cuda"),
    Variant("all-lossless", guide=guidance.batched_cfg, runtime=runtime.compiled_frozen, needs="cpu"),
    Variant(
        "all-half",
        guide=guidance.batched_cfg,
        precision=precision.cast(BF16),
        runtime=runtime.compiled_frozen,
        needs="cpu",
    ),
    Variant(
        "all-half-limited",
        guide=guidance.batched_cfg,
        precision=precision.cast(BF16),
        runtime=runtime.compiled_frozen,
        guided_between=LIMITED,
        needs="cpu",
    ),
    Variant(
        "all-equal-steps",
        guide=guidance.batched_cfg,
        runtime=runtime.compiled_frozen,
        guided_between=LIMITED,
        needs="cpu",
    ),
    Variant(
        "all-lossless-cuda",
        guide=guidance.batched_cfg,
        layout=precision.channels_last,
        update=fused_fed_update,
        runtime=graphs.graphed_compiled,
        needs="cuda",
    ),
    Variant(
        "all-equal-steps-cuda",
        guide=guidance.batched_cfg,
        layout=precision.channels_last,
        precision=precision.cast(BF16),
        update=fused_fed_update,
        runtime=graphs.graphed_compiled,
        needs="cuda",
    ),
]
VARIANTS = {variant.name: variant for variant in _ALL}


def variant(name: str) -> Variant:
    """The named variant; an unknown name is refused with the nearest that exists."""
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS)
    return VARIANTS[name]
