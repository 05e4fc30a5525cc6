"""The rows of the table: each names what it changes, what it needs and whether it may change the pictures.

To add one: a `Variant` (or a trajectory), one line here, and say whether it is lossless.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import evidence
from bench.evidence import (
    ALWAYS,
    called,
    compiled,
    computes_in,
    contains,
    every_step,
    in_float32,
    in_tensorfloat32,
    keeps_channels_last,
    launches,
    launches_graphs_alone,
    once_doubled,
    replayed,
    replayed_over,
    takes,
    twice,
)
from bench.quality.equivalence import STRANGENESS, STRANGENESS_ERROR, Budget
from sampler import cpu, graphs, runtime
from sampler import trajectory as trajectories
from sampler.guidance import Condition
from sampler.models import Model
from sampler.trajectory import Trajectory
from sampler.variants import REFERENCE as REFERENCE_VARIANT
from sampler.variants import VARIANTS, Variant

# advance(x, positions, noise, after_step) -> x: takes the steps at these positions of a path
Advance = Callable[..., Tensor]
Loop = Callable[[Model, Condition | None, float, Trajectory], Advance]
Path_ = Callable[[Model, int], Trajectory]  # (model, steps of the reference) -> trajectory
COMPILED = (runtime.compiled, runtime.compiled_frozen, graphs.graphed_compiled)


def full_path(model: Model, steps: int) -> Trajectory:
    """The reference's: ancestral, posterior variance, x0 clipped to ±1."""
    return trajectories.ancestral(
        model.schedule, trajectories.spaced(model.schedule, steps), prediction=model.prediction, clip=model.clip
    )


def strided_path(share: float) -> Path_:
    """The strided sampler with a share of the reference's steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = trajectories.spaced(model.schedule, max(1, round(steps * share)))
        return trajectories.strided(model.schedule, fewer, prediction=model.prediction, clip=model.clip)

    return path


def fewer_path(share: float) -> Path_:
    """The ancestral sampler with a share of the reference's steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = trajectories.spaced(model.schedule, max(1, round(steps * share)))
        return trajectories.ancestral(model.schedule, fewer, prediction=model.prediction, clip=model.clip)

    return path


def ddim_path(share: float) -> Path_:
    """DDIM(0) with a share of the reference's steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = trajectories.spaced(model.schedule, max(1, round(steps * share)))
        return trajectories.ddim(model.schedule, fewer, prediction=model.prediction, clip=model.clip)

    return path


@dataclass(frozen=True)
class Contender:
    """One row.

    lossless: it claims to change no picture beyond rounding. textbook: run by `sampler.textbook`. loop: makes somebody
    else's loop for a model, a condition, a guidance scale and a path; package: what it needs to be installed.
    engaged: the proofs that it did what it claims; without all of them it is red. budget: what a row that is not
    lossless may lose at most; beyond it, it is red. None: it promises nothing, and its loss is reported.
    promises: whether it is red beyond its budget; a row that promises nothing is judged by it all the same, and its
    verdict shown. probed_on_its_path: its picture is compared with that of plain steps on a path of its own kind.
    """

    name: str
    changes: str
    variant: Variant
    path: Path_ = full_path
    lossless: bool = True
    textbook: str = ""  # 'ddpm' or 'strided': the loop of sampler.textbook
    needs: str = ""
    loop: Loop | None = None
    package: str = ""
    engaged: tuple[evidence.Proof, ...] = evidence.PLAIN
    budget: Budget | None = None
    promises: bool = True
    probed_on_its_path: bool = False

    @property
    def fuses_only_the_update(self) -> bool:
        mine, plain = self.variant, REFERENCE_VARIANT
        return mine.update is not plain.update and (mine.guide, mine.runtime) == (plain.guide, plain.runtime)

    @property
    def compiles(self) -> int:
        """How much its first call compiles where no cache helps: nothing, an update, a step, or two of them."""
        if self.variant.runtime in COMPILED:
            return 2 + (not self.variant.guides_everywhere)  # where guidance is limited, steps without it too
        return int(self.variant.update is not REFERENCE_VARIANT.update)

    def unavailable(self, device: str) -> str:
        """Why this row cannot run on the device, or ''."""
        kind = torch.device(device).type
        needs = {self.needs, self.variant.needs}
        if "cuda" in needs and kind != "cuda":
            here = "; on a CPU, compiled-update and native-update fuse the update"
            return "needs CUDA" + here * self.fuses_only_the_update
        if "cpu" in needs and kind != "cpu":
            return "for the CPU; its CUDA counterpart has a row of its own"
        if "half" in needs and kind == "cpu" and not cpu.has_bf16():
            return "this CPU has no bfloat16 instructions (see the row autocast-bf16 for what it costs)"
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.variant.update is VARIANTS["native-update"].update:
            from kernels import native

            return native.available() or ""
        return ""


def every_timestep(asked: int, timesteps: int) -> int:
    """The textbook's loop takes every timestep of the model's schedule, whatever is asked."""
    return timesteps


def share_of_steps(share: float) -> evidence.Steps:
    return lambda asked, timesteps: max(1, round(asked * share))


def textbook_stride(asked: int, timesteps: int) -> int:
    """The textbook's strided loop takes as many steps as whole strides fit: 334 when 300 are asked for."""
    return len(range(0, timesteps, timesteps // share_of_steps(1 / 4)(asked, timesteps)))


def shown_by(*proofs: evidence.Proof, steps: evidence.Steps = every_step) -> tuple[evidence.Proof, ...]:
    """The proofs that a row needs, beside those that every row does."""
    return (takes(steps), *proofs, *ALWAYS)


MEASURED = "bench/quality/weights/README.md"
# Each budget follows from the anchors that are measured there, and a test recomputes them. Of kernel distance and of
# diversity: what 25 instead of 1,000 ancestral steps lose, where other seeds lose nothing, each with its error.
# Of label accuracy: two pictures in a hundred, which was chosen. Of strangeness: see `equivalence.STRANGENESS`.
KERNEL_DAMAGE, DIVERSITY_DAMAGE, ACCURACY = 0.1075, 0.0768, 0.02
KERNEL_DAMAGE_ERROR, DIVERSITY_DAMAGE_ERROR = 0.0161, 0.0156
LABELS = "2 of 100 labels not recognised"
AT_EQUAL_STEPS = Budget(
    kernel=KERNEL_DAMAGE / 2,
    accuracy=ACCURACY,
    diversity=DIVERSITY_DAMAGE / 2,
    measured=MEASURED,
    reason=f"keeps its steps: nearer to the reference than to 25 plain steps; {LABELS}; as strange as if every eighth "
    "picture were drawn without guidance",
    strangeness=STRANGENESS / 2,
    kernel_error=KERNEL_DAMAGE_ERROR / 2,
    diversity_error=DIVERSITY_DAMAGE_ERROR / 2,
    strangeness_error=STRANGENESS_ERROR / 2,
)
AT_FEWER_STEPS = Budget(
    kernel=KERNEL_DAMAGE,
    accuracy=ACCURACY,
    diversity=DIVERSITY_DAMAGE,
    measured=MEASURED,
    reason=f"takes fewer steps: no worse than 25 plain steps; {LABELS}; as strange as if every fourth "
    "picture were drawn without guidance",
    kernel_error=KERNEL_DAMAGE_ERROR,
    diversity_error=DIVERSITY_DAMAGE_ERROR,
)
BF16, FP16 = computes_in("bfloat16"), computes_in("float16")
TWO_CALLS, ONE_CALL = called(twice), called(once_doubled)
OUR_KERNEL, OUR_NOISE = launches("posterior"), launches("philox_normal")  # written in Triton
FLOAT32 = in_float32
ONE_GRAPH = (replayed, launches_graphs_alone)  # of ours; `reduce-overhead` also copies its inputs into place
COMPILED_ONE_CALL = (compiled, replayed, contains(once_doubled))
COMPILED_GRAPH_ONE_CALL = (compiled, *ONE_GRAPH, contains(once_doubled))
_V = VARIANTS
_ALL = [
    Contender("textbook", "the textbook's loop: unclipped, σ=√β, two calls, host-side look-ups",
              _V["reference"], lossless=False, textbook="ddpm",
              engaged=shown_by(TWO_CALLS, FLOAT32, steps=every_timestep)),
    Contender("reference", "eager, float32, sequential guidance, clipped x0", _V["reference"]),
    Contender("batched-cfg", "one call of 2B samples for guidance instead of two of B", _V["batched-cfg"],
              engaged=shown_by(ONE_CALL, FLOAT32)),
    Contender("channels-last", "NHWC weights and activations (on CUDA, GroupNorm hands NCHW on; attention is fused)",
              _V["channels-last"],
              engaged=shown_by(TWO_CALLS, FLOAT32, keeps_channels_last)),
    Contender("compiled-update", "posterior update compiled by Inductor", _V["compiled-update"],
              engaged=shown_by(TWO_CALLS, FLOAT32, launches("compiled graph"))),
    Contender("native-update", "update and its noise in one pass of C++", _V["native-update"],
              engaged=shown_by(TWO_CALLS, FLOAT32, launches("native_posterior_drawn"))),
    Contender("fused-update", "update as one Triton kernel, noise read from memory", _V["fused-update"],
              engaged=shown_by(TWO_CALLS, FLOAT32, OUR_KERNEL)),
    Contender("fused-guided", "fused-update that also combines the halves of the guidance", _V["fused-guided"],
              engaged=shown_by(TWO_CALLS, FLOAT32, OUR_KERNEL)),
    Contender("fused-drawn", "fused-guided that also draws its noise in registers", _V["fused-drawn"],
              engaged=shown_by(TWO_CALLS, FLOAT32, OUR_KERNEL)),
    Contender("fused-fed", "fused-drawn that also writes the next input twice, for batched guidance", _V["fused-fed"],
              engaged=shown_by(ONE_CALL, FLOAT32, OUR_KERNEL)),
    Contender("compiled", "torch.compile of the whole step", _V["compiled"],
              engaged=shown_by(compiled, replayed, contains(twice), FLOAT32)),
    Contender("cuda-graph", "one step captured, replayed each time", _V["cuda-graph"],
              engaged=shown_by(*ONE_GRAPH, contains(twice), FLOAT32, OUR_NOISE)),
    Contender("cuda-graph-5", "five steps captured in one graph", _V["cuda-graph-5"],
              engaged=shown_by(replayed_over(5), launches_graphs_alone, contains(twice), FLOAT32, OUR_NOISE)),
    Contender("fused-graph", "cuda-graph with the fused-drawn update inside", _V["fused-graph"],
              engaged=shown_by(*ONE_GRAPH, contains(twice), FLOAT32, OUR_KERNEL)),
    Contender("compiled-graph", "fused-graph whose network is compiled", _V["compiled-graph"],
              engaged=shown_by(compiled, *ONE_GRAPH, contains(twice), FLOAT32, OUR_KERNEL)),
    Contender("all-lossless", "batched guidance + compiled with frozen weights", _V["all-lossless"],
              engaged=shown_by(*COMPILED_ONE_CALL, FLOAT32)),
    Contender("all-lossless-cuda", "batched guidance + channels-last + fused-fed + compiled network in a CUDA graph",
              _V["all-lossless-cuda"],
              engaged=shown_by(*COMPILED_GRAPH_ONE_CALL, FLOAT32, OUR_KERNEL, keeps_channels_last)),
    Contender("tf32", "TensorFloat-32 matrix units", _V["tf32"], lossless=False, budget=AT_EQUAL_STEPS,
              engaged=shown_by(TWO_CALLS, in_tensorfloat32)),
    Contender("autocast-bf16", "bfloat16 autocast, entered once", _V["autocast-bf16"],
              lossless=False, budget=AT_EQUAL_STEPS, engaged=shown_by(TWO_CALLS, BF16)),
    Contender("autocast-fp16", "float16 autocast, entered once", _V["autocast-fp16"],
              lossless=False, budget=AT_EQUAL_STEPS, engaged=shown_by(TWO_CALLS, FP16)),
    Contender("cast-bf16", "weights cast to bfloat16 once", _V["cast-bf16"], lossless=False, budget=AT_EQUAL_STEPS,
              engaged=shown_by(TWO_CALLS, BF16)),
    Contender("cast-fp16", "weights cast to float16 once", _V["cast-fp16"], lossless=False, budget=AT_EQUAL_STEPS,
              engaged=shown_by(TWO_CALLS, FP16)),
    Contender("all-half", "all-lossless + weights in bfloat16", _V["all-half"],
              lossless=False, budget=AT_EQUAL_STEPS, needs="half", engaged=shown_by(*COMPILED_ONE_CALL, BF16)),
    Contender("limited-guidance", "guidance at middle noise levels only (40 % of the steps)",
              _V["limited-guidance"], lossless=False, budget=AT_EQUAL_STEPS),
    Contender("all-equal-steps", "all-lossless + limited guidance", _V["all-equal-steps"],
              lossless=False, budget=AT_EQUAL_STEPS, engaged=shown_by(*COMPILED_ONE_CALL, FLOAT32)),
    Contender("all-half-limited", "all-half + limited guidance", _V["all-half-limited"],
              lossless=False, budget=AT_EQUAL_STEPS, needs="half", engaged=shown_by(*COMPILED_ONE_CALL, BF16)),
    Contender("all-equal-steps-cuda", "all-lossless-cuda + weights in bfloat16", _V["all-equal-steps-cuda"],
              lossless=False, budget=AT_EQUAL_STEPS,
              engaged=shown_by(*COMPILED_GRAPH_ONE_CALL, BF16, OUR_KERNEL, keeps_channels_last)),
    Contender("textbook-strided", "the textbook's strided loop: a quarter of the steps, left-over noise",
              _V["reference"], strided_path(1 / 4), lossless=False, textbook="strided",
              engaged=shown_by(TWO_CALLS, FLOAT32, steps=textbook_stride)),
    Contender("strided", "a quarter of the steps, x0 noised afresh", _V["reference"], strided_path(1 / 4),
              lossless=False, engaged=shown_by(TWO_CALLS, FLOAT32, steps=share_of_steps(1 / 4))),
    Contender("ddim", "DDIM(0) with a twentieth of the steps", _V["reference"], ddim_path(1 / 20),
              lossless=False, budget=AT_FEWER_STEPS,
              engaged=shown_by(TWO_CALLS, FLOAT32, steps=share_of_steps(1 / 20))),
    Contender("all-few-steps", "all-equal-steps with a twentieth of the steps, ancestral", _V["all-equal-steps"],
              fewer_path(1 / 20), lossless=False, budget=AT_FEWER_STEPS,
              engaged=shown_by(*COMPILED_ONE_CALL, FLOAT32, steps=share_of_steps(1 / 20))),
    Contender("all-together", "all-equal-steps + DDIM with a twentieth of the steps", _V["all-equal-steps"],
              ddim_path(1 / 20), lossless=False, budget=AT_FEWER_STEPS, promises=False,
              engaged=shown_by(*COMPILED_ONE_CALL, FLOAT32, steps=share_of_steps(1 / 20))),
    Contender("all-together-cuda", "all-equal-steps-cuda + DDIM with a twentieth of the steps",
              _V["all-equal-steps-cuda"], ddim_path(1 / 20), lossless=False, budget=AT_FEWER_STEPS, promises=False,
              engaged=shown_by(*COMPILED_GRAPH_ONE_CALL, BF16, OUR_KERNEL, keeps_channels_last,
                               steps=share_of_steps(1 / 20))),
]  # fmt: skip
CONTENDERS = {contender.name: contender for contender in _ALL}
REFERENCE, TEXTBOOK = "reference", "textbook"
