"""Compiles the Triton kernels for an architecture on a machine without a GPU, and reads what came out."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

LINES: list[str] = []  # of the report that ends a run, see conftest.py

# what a kernel of the update is made of: name, then the types of the arguments that are not None
CAPABILITIES: dict[str, dict[str, str]] = {
    "plain": {},
    "noise read": {"z": "*fp32"},
    "guided, noise read": {"z": "*fp32", "unconditional": "*fp32"},
    "guided, noise drawn": {"seed": "*i64", "unconditional": "*fp32"},
    "guided half, drawn, fed": {"seed": "*i64", "conditional": "*bf16", "unconditional": "*bf16", "feed": "*bf16",
                                "feed_again": "*bf16"},
    "remembering, noise read": {"z": "*fp32", "before": "*fp32", "x0": "*fp32"},
    "remembering, drawn, fed": {"seed": "*i64", "conditional": "*bf16", "unconditional": "*bf16", "feed": "*bf16",
                                "feed_again": "*bf16", "before": "*fp32", "x0": "*fp32"},
    "channels-last half": {"z": "*fp32", "conditional": "*fp16", "plane": "i32"},
}  # fmt: skip
_ALWAYS = {"destination": "*fp32", "x": "*fp32", "row": "*fp32", "conditional": "*fp32", "scale": "fp32",
           "elements": "i32", "batch_stride": "i32", "channel_stride": "i32", "pixel_stride": "i32",
           "size": "i32"}  # fmt: skip


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture: its PTX, its machine code, and what `ptxas` gave it."""

    name: str
    arch: int
    ptx: str
    sass: str
    usage: dict[str, int]  # REG, STACK, SHARED, LOCAL

    @property
    def mix(self) -> Counter[str]:
        """Instructions by the part of their name before the first dot."""
        return Counter(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", self.sass, re.M))

    @property
    def spills(self) -> int:
        """Stores to and loads from local memory: spilled registers, or an array that did not fit."""
        return sum(self.mix[name] for name in ("STL", "LDL"))

    def accesses(self, kind: str) -> Counter[int]:
        """Bits of each global `ld` or `st` of a thread, counted; a scalar is 32 or 64 bits wide."""
        found = re.findall(rf"\b{kind}\.global[.\w:]*?((?:\.v\d)?)\.b(\d+)", self.ptx)
        return Counter(int(vector[2:] or 1) * int(bits) for vector, bits in found)

    def line(self) -> str:
        rest = ", ".join(f"{name} {n}" for name, n in self.mix.most_common(9) if name != "NOP")
        widest = [max(self.accesses(kind), default=0) for kind in ("ld", "st")]
        return (
            f"sm_{self.arch:<4}{self.name:<25}{self.usage['REG']:>4} registers, {self.spills} spills, "
            f"{self.usage['STACK']} B stack, ld/st {widest[0]}/{widest[1]} bit, "
            f"{sum(self.mix.values()) - self.mix['NOP']:>4} instructions: {rest}"
        )


def compile_kernel(name: str, arch: int, warps: int = 4, vectors: int = 1, wide: bool = False) -> Compiled:
    """A capability of the update (or 'noise alone') compiled as it is launched: 16-byte aligned, 16 | elements."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from kernels import posterior_kernel

    types = dict(_ALWAYS)
    if name == "noise alone":
        kernel, types = posterior_kernel.philox_normal, {"destination": "*fp32", "seed": "*i64", "elements": "i32"}
    else:
        kernel, types = posterior_kernel.posterior.fn, types | CAPABILITIES[name]
    if "seed" in types:
        types |= {"sample_ids": "*i64", "step": "*i64"}
    if wide:
        types |= {"elements": "i64", "batch_stride": "i64"}
    constants = {"BLOCK": 32 * posterior_kernel.LANE.value * warps * vectors, "WIDE": wide}
    constants |= dict.fromkeys(set(kernel.arg_names) - set(types) - set(constants))
    signature = {arg: types.get(arg, "constexpr") for arg in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (arg, kind) in enumerate(signature.items())
        if kind.startswith("*") or arg in ("elements", "batch_stride")
    }
    options = {**posterior_kernel.OPTIONS, "num_warps": warps}
    built = compile(ASTSource(kernel, signature, constants, aligned), GPUTarget("cuda", arch, 32), options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "-res-usage", cubin)
        sass = _output(knobs.nvidia.nvdisasm.path, "-c", cubin)
    return Compiled(name, arch, built.asm["ptx"], sass, {k: int(v) for k, v in re.findall(r"([A-Z]+):(\d+)", usage)})


def _output(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout
