"""The Triton kernel without a GPU: interpreted against its definition, and compiled ahead of time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import fused_posterior

HERE = Path(__file__).parent
TRITON_MISSING = fused_posterior.available(torch.device("cuda"))
needs_triton = pytest.mark.skipif(TRITON_MISSING is not None, reason=str(TRITON_MISSING))


def run_cases(**environment: str) -> None:
    """Run fused_cases.py in a fresh process: how Triton runs a kernel is decided when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "fused_cases.py")]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_triton
def test_interpreted():
    run_cases(TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
def test_on_the_gpu():
    run_cases()


def test_it_imports_without_triton():
    program = """
import sys
sys.modules["triton"] = None  # now importing it raises ImportError
import torch
from kernels import fused_posterior
x = torch.zeros(1, 4)
try:
    fused_posterior.fused_posterior(x, x, x, torch.zeros(6))
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.stdout.strip() == "the Triton kernel needs Triton: pip install triton", done.stderr


@needs_triton
def test_a_cpu_is_refused():
    x = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match="needs a GPU, not cpu"):
        fused_posterior.fused_posterior(x, x, x, torch.zeros(6))


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Compiles a kernel for an architecture, without a GPU, and returns (PTX, what ptxas used)."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from kernels import posterior_kernel

    def build(name: str, arch: int, guided: bool, plane: int | None, dtype: str) -> tuple[str, str]:
        types = dict.fromkeys(("destination", "x", "z", "row"), "*fp32")
        types |= dict.fromkeys(("seed", "sample_ids", "step"), "*i64")
        types |= dict.fromkeys(("elements", "batch_stride", "plane", "channel_stride", "pixel_stride"), "i32")
        types |= {"conditional": f"*{dtype}", "unconditional": f"*{dtype}", "scale": "fp32"}
        constants: dict = {"BLOCK": fused_posterior.BLOCK}
        constants |= {} if guided else {"unconditional": None}
        constants |= {} if plane else {"plane": None}
        kernel = getattr(posterior_kernel, name)
        signature = {arg: "constexpr" if arg in constants else types[arg] for arg in kernel.arg_names}
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, (arg, kind) in enumerate(signature.items())
            if kind.startswith("*") or arg in ("elements", "batch_stride")
        }
        source = ASTSource(kernel, signature, constants, aligned)
        built = compile(source, target=GPUTarget("cuda", arch, 32), options=dict(fused_posterior.OPTIONS))
        cubin = tmp_path / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
        return built.asm["ptx"], subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return build


@needs_triton
@pytest.mark.parametrize("name", ["posterior", "posterior_drawn"])
@pytest.mark.parametrize(
    ("arch", "guided", "plane", "dtype"),
    [
        (80, False, None, "fp32"),
        (90, False, None, "fp32"),
        (90, True, None, "bf16"),
        (90, True, 4096, "fp16"),
        (100, False, None, "fp32"),
    ],
)
def test_what_the_compiler_makes_of_it(compiled, name, arch, guided, plane, dtype):
    ptx, usage = compiled(name, arch, guided, plane, dtype)
    assert "max.NaN.f32" in ptx, "NaN would vanish in the clamp"
    assert "min.NaN.f32" in ptx, "NaN would vanish in the clamp"
    assert not re.search(r"\b(max|min)(\.ftz)?\.f32", ptx)
    assert ".local" not in ptx, "there is a slow path that uses memory"
    assert "STACK:0 " in usage
    assert "LOCAL:0 " in usage
    assert "SHARED:0 " in usage, "the noise is shuffled through shared memory"
    assert len(re.findall(r"st\.global\.v4\.b32", ptx)) == 1, "the store is not 128 bits wide"
    assert ("fma." in ptx) == (name == "posterior_drawn"), "the update must round as separate operations do"
