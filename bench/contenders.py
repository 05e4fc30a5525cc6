"""The rows of the table: each names what it changes, what it needs and whether it may change the pictures.

To add one: a `Variant` (or a trajectory), one line here, and say whether it is lossless.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sampler import trajectory as trajectories
from sampler.models import Model
from sampler.trajectory import Trajectory
from sampler.variants import VARIANTS, Variant

Path_ = Callable[[Model, int], Trajectory]  # (model, steps of the reference) -> trajectory


def full_path(model: Model, steps: int) -> Trajectory:
    """The reference's: ancestral, posterior variance, x0 clipped to ±1."""
    return trajectories.ancestral(
        model.schedule, trajectories.spaced(model.schedule, steps), prediction=model.prediction
    )


def strided_path(share: float) -> Path_:
    """The strided sampler with a share of the reference's steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = trajectories.spaced(model.schedule, max(1, round(steps * share)))
        return trajectories.strided(model.schedule, fewer, prediction=model.prediction)

    return path


def ddim_path(share: float) -> Path_:
    """DDIM(0) with a share of the reference's steps."""

    def path(model: Model, steps: int) -> Trajectory:
        fewer = trajectories.spaced(model.schedule, max(1, round(steps * share)))
        return trajectories.ddim(model.schedule, fewer, prediction=model.prediction)

    return path


@dataclass(frozen=True)
class Contender:
    """One row.

    lossless: it claims to change no picture beyond rounding. textbook: run by `sampler.textbook`.
    noise: 'generator' (torch.Generator, as the reference) or 'philox' where it draws its own.
    """

    name: str
    changes: str
    variant: Variant
    path: Path_ = full_path
    lossless: bool = True
    textbook: str = ""  # 'ddpm' or 'strided': the loop of sampler.textbook
    needs: str = ""

    def unavailable(self, device: str) -> str:
        """Why this row cannot run on the device, or ''."""
        kind = torch.device(device).type
        needs = {self.needs, self.variant.needs}
        if "cuda" in needs and kind != "cuda":
            return "needs CUDA"
        if "cpu" in needs and kind != "cpu":
            return "for the CPU; its CUDA counterpart has a row of its own"
        if "half" in needs and kind == "cpu" and not cpu_has_bf16():
            return "this CPU has no bfloat16 instructions (see the row autocast-bf16 for what it costs)"
        if self.variant.name == "native-update":
            from kernels import native

            return native.available() or ""
        return ""


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX-512 BF16, AMX, or Arm's)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


_V = VARIANTS
_ALL = [
    Contender("textbook", "the textbook's loop: unclipped, σ=√β, two calls, host-side look-ups",
              _V["reference"], lossless=False, textbook="ddpm"),
    Contender("reference", "eager, float32, sequential guidance, clipped x0", _V["reference"]),
    Contender("batched-cfg", "one call of 2B samples for guidance instead of two of B", _V["batched-cfg"]),
    Contender("channels-last", "NHWC weights and activations", _V["channels-last"]),
    Contender("compiled-update", "posterior update compiled by Inductor", _V["compiled-update"]),
    Contender("native-update", "update and its noise in one pass of C++", _V["native-update"]),
    Contender("fused-update", "update as one Triton kernel, noise read from memory", _V["fused-update"]),
    Contender("fused-guided", "fused-update that also combines the halves of the guidance", _V["fused-guided"]),
    Contender("fused-drawn", "fused-guided that also draws its noise in registers", _V["fused-drawn"]),
    Contender("fused-fed", "fused-drawn that also writes the next input twice, for batched guidance", _V["fused-fed"]),
    Contender("compiled", "torch.compile of the whole step", _V["compiled"]),
    Contender("cuda-graph", "one step captured, replayed each time", _V["cuda-graph"]),
    Contender("cuda-graph-5", "five steps captured in one graph", _V["cuda-graph-5"]),
    Contender("fused-graph", "cuda-graph with the fused-drawn update inside", _V["fused-graph"]),
    Contender("compiled-graph", "fused-graph whose network is compiled", _V["compiled-graph"]),
    Contender("all-lossless", "batched guidance + compiled with frozen weights", _V["all-lossless"]),
    Contender("all-lossless-cuda", "batched guidance + channels-last + fused-fed + compiled network in a CUDA graph",
              _V["all-lossless-cuda"]),
    Contender("tf32", "TensorFloat-32 matrix units", _V["tf32"], lossless=False),
    Contender("autocast-bf16", "bfloat16 autocast, entered once", _V["autocast-bf16"], lossless=False),
    Contender("autocast-fp16", "float16 autocast, entered once", _V["autocast-fp16"], lossless=False),
    Contender("cast-bf16", "weights cast to bfloat16 once", _V["cast-bf16"], lossless=False),
    Contender("cast-fp16", "weights cast to float16 once", _V["cast-fp16"], lossless=False),
    Contender("all-half", "all-lossless + weights in bfloat16", _V["all-half"], lossless=False, needs="half"),
    Contender("limited-guidance", "guidance at middle noise levels only (40 % of the steps)",
              _V["limited-guidance"], lossless=False),
    Contender("all-equal-steps", "all-lossless + limited guidance", _V["all-equal-steps"], lossless=False),
    Contender("all-equal-steps-cuda", "all-lossless-cuda + weights in bfloat16", _V["all-equal-steps-cuda"],
              lossless=False),
    Contender("textbook-strided", "the textbook's strided loop: a quarter of the steps, left-over noise",
              _V["reference"], strided_path(1 / 4), lossless=False, textbook="strided"),
    Contender("strided", "a quarter of the steps, x0 noised afresh", _V["reference"], strided_path(1 / 4),
              lossless=False),
    Contender("ddim", "DDIM(0) with a twentieth of the steps", _V["reference"], ddim_path(1 / 20),
              lossless=False),
    Contender("all-together", "all-equal-steps + DDIM with a twentieth of the steps", _V["all-equal-steps"],
              ddim_path(1 / 20), lossless=False),
    Contender("all-together-cuda", "all-equal-steps-cuda + DDIM with a twentieth of the steps",
              _V["all-equal-steps-cuda"], ddim_path(1 / 20), lossless=False),
]  # fmt: skip
CONTENDERS = {contender.name: contender for contender in _ALL}
REFERENCE, TEXTBOOK = "reference", "textbook"
