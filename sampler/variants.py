"""Read this first: how five seams become a sampling loop.

    runtime(  update(  guide(  precision(  layout(  network  )  )  )  )  )

Every acceleration acts at one seam. A `Variant` names only where it differs from the reference, and
`build` nests the seams in this one order, so no combination can silently lose a part.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sampler import guidance, precision, runtime
from sampler.errors import NonFiniteError, UsageError, unknown
from sampler.guidance import Condition, Guide, Predict
from sampler.noise import Noise, NoiseKey, PhiloxNoise
from sampler.posterior import Guided, posterior
from sampler.precision import Layout, Precision
from sampler.runtime import Runtime, Step
from sampler.trajectory import Trajectory


@dataclass(frozen=True)
class Update:
    """The arithmetic of a step: `apply(x, out, noise, row)`; noise is a tensor, or a key if `draws`."""

    apply: Callable[..., Tensor]
    draws: bool = False  # draws its own noise from a `NoiseKey`, in registers
    needs: str = ""  # device type it needs: 'cuda', 'cpu' or '' for any


def _compiled_posterior() -> Update:
    return Update(torch.compile(posterior, fullgraph=True, dynamic=False))


@dataclass(frozen=True)
class Variant:
    """One way to run the sampler; the defaults are the reference."""

    name: str
    layout: Layout = precision.contiguous
    precision: Precision = precision.full
    guide: Guide = guidance.sequential_cfg
    update: Callable[[], Update] = lambda: Update(posterior)
    runtime: Runtime = runtime.eager
    guided_between: tuple[float, float] = (0.0, 1.0)  # guide while lo <= t / T < hi, else condition only
    needs: str = ""  # what it cannot run without: 'cuda', 'cpu' (and not a GPU) or ''

    def __post_init__(self):
        low, high = self.guided_between
        if not 0 <= low < high <= 1:
            raise UsageError(f"variant {self.name!r}: guided_between {self.guided_between} is no interval in 0…1")
        compiles = self.runtime in (runtime.compiled, runtime.compiled_frozen)
        if compiles and self.update in (native_update, native_drawn_update, fused_update):
            raise UsageError(
                f"variant {self.name!r}: a compiled step cannot contain a kernel of ours; "
                "its update is already fused by the compiler"
            )


def native_update() -> Update:
    """The posterior update in one pass of C++ over memory (CPU)."""
    from kernels import native

    return Update(native.native_posterior, needs="cpu")


def native_drawn_update() -> Update:
    """The same, drawing its Philox noise in registers (CPU)."""
    from kernels import native

    def apply(x: Tensor, out: Tensor | Guided, key: NoiseKey, row: Tensor) -> Tensor:
        return native.native_posterior_drawn(x, out, key.seed, key.sample_ids, int(key.step), row)

    return Update(apply, draws=True, needs="cpu")


def fused_update() -> Update:
    """The posterior update as one Triton kernel (CUDA)."""
    from kernels import fused_posterior

    return Update(fused_posterior.fused_posterior, needs="cuda")


@dataclass(frozen=True, eq=False)
class Sampler:
    """A variant built for one network and condition: its steps, their context and their predictions."""

    variant: Variant
    guided: Step
    conditional: Step  # the step where guidance is off
    context: Callable[[], AbstractContextManager]
    predict_guided: Predict
    predict_conditional: Predict
    draws: bool

    def steps(self, trajectory: Trajectory) -> list[Step]:
        """The step to take at each timestep of the trajectory, decided before the loop."""
        return [self.guided if on else self.conditional for on in self._guidance(trajectory)]

    def predictions(self, trajectory: Trajectory) -> list[Predict]:
        """The prediction inside each of these steps."""
        return [self.predict_guided if on else self.predict_conditional for on in self._guidance(trajectory)]

    def _guidance(self, trajectory: Trajectory) -> list[bool]:
        low, high = (share * trajectory.train_steps for share in self.variant.guided_between)
        return [low <= t < high for t in trajectory.timesteps]


def build(
    variant: Variant,
    network: nn.Module,
    condition: Condition | None = None,
    scale: float = 1.0,
    like: Sampler | None = None,
) -> Sampler:
    """Nest the seams of a variant around a network, for a condition and a guidance scale.

    like: a sampler built for the same network, condition and scale whose variant differs from this one
    only in where it guides; its guided step is used again instead of being compiled once more.
    """
    if like is not None and replace(like.variant, name=variant.name, guided_between=variant.guided_between) != variant:
        raise UsageError(f"variants {variant.name!r} and {like.variant.name!r} differ in more than where they guide")
    prepared = variant.precision(variant.layout(network))
    update = variant.update()
    predict = variant.guide(prepared.network, condition, float(scale))

    def step_with(predict: Predict) -> Step:
        def step(x: Tensor, noise: Tensor | NoiseKey, t: Tensor, row: Tensor) -> Tensor:
            return update.apply(x, predict(x, t), noise, row)

        return variant.runtime(step)

    guided = step_with(predict) if like is None else like.guided
    everywhere = variant.guided_between == (0.0, 1.0) or scale == 1
    alone = predict if everywhere else variant.guide(prepared.network, condition, 1.0)
    conditional = guided if everywhere else step_with(alone)
    return Sampler(variant, guided, conditional, prepared.context, predict, alone, update.draws)


def run(
    sampler: Sampler,
    x: Tensor,
    trajectory: Trajectory,
    noise: Noise,
    after_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Take x [B, C, H, W] from the first timestep of the trajectory to the end, and return it.

    after_step(i, x), if given, is called with the state after step i; the loop asks the device nothing.
    """
    key = noise.key if isinstance(noise, PhiloxNoise) else None
    if sampler.draws and key is None:
        raise UsageError(f"variant {sampler.variant.name!r} draws its own noise and needs a PhiloxNoise source")
    with torch.inference_mode(), sampler.context():
        timesteps, rows = trajectory.tables(x.device)
        ts, rs, steps = timesteps.split(1), rows.unbind(), sampler.steps(trajectory)
        # made in inference mode, as every later x and z is: to torch.compile others would be another type
        x = x.clone()
        still = torch.zeros_like(x)  # stands in for the noise where its weight is zero
        for i, (timestep, stochastic) in enumerate(zip(trajectory.timesteps, trajectory.stochastic, strict=True)):
            z: Tensor | NoiseKey = still
            if sampler.draws and key is not None:
                z = key(timestep, x)
            elif stochastic:
                z = noise.draw(timestep, x)
            x = steps[i](x, z, ts[i], rs[i])
            if after_step is not None:
                after_step(i, x)
    return x


def find_first_nonfinite(sampler: Sampler, x: Tensor, trajectory: Trajectory, noise: Noise) -> NonFiniteError:
    """Walk the loop again, looking after every step, and say where the numbers broke."""

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
# Guidance at middle noise levels only: σ = √(1-ᾱ)/√ᾱ from 0.24 to 2.9 on the linear schedule, near the
# interval (0.28, 2.9] of Kynkäänniemi et al. (2024, "Applying guidance in a limited interval")
LIMITED = (0.07, 0.47)
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
    Variant("compiled-update", update=_compiled_posterior),
    Variant("native-update", update=native_drawn_update, needs="cpu"),
    Variant("fused-update", update=fused_update, needs="cuda"),
    Variant("compiled", runtime=runtime.compiled),
    Variant("cuda-graph", runtime=runtime.graphed, needs="cuda"),
    Variant("all-lossless", guide=guidance.batched_cfg, runtime=runtime.compiled_frozen, needs="cpu"),
    Variant(
        "all-half",
        guide=guidance.batched_cfg,
        precision=precision.cast(BF16),
        runtime=runtime.compiled_frozen,
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
        runtime=runtime.compiled,
        needs="cuda",
    ),
    Variant(
        "all-equal-steps-cuda",
        guide=guidance.batched_cfg,
        layout=precision.channels_last,
        precision=precision.cast(BF16),
        runtime=runtime.compiled,
        needs="cuda",
    ),
]
VARIANTS = {variant.name: variant for variant in _ALL}


def variant(name: str) -> Variant:
    """The named variant; an unknown name is refused with the nearest that exists."""
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS)
    return VARIANTS[name]
