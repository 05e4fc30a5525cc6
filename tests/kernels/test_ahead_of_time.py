"""What Triton's compiler makes of the kernels for three architectures, without a GPU; printed at the end of the run."""

import re

import pytest
import torch

from kernels import fused_posterior
from tests.kernels.ahead_of_time import CAPABILITIES, LINES, Compiled, compile_kernel

MISSING = fused_posterior.available(torch.device("cuda"))
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200
NOISE = "noise alone"
HALF = {"guided half, drawn, fed", "channels-last half"}
SCALARS = {"row": 5, "sigma": 1, "key": 3, "g": 1}  # loads of one number a program, by what they read


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Compiled here and now, not found in a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def check_resources(kernel: Compiled, registers: int, shared: int = 0) -> None:
    assert kernel.usage["STACK"] == kernel.usage["LOCAL"] == kernel.spills == 0
    assert ".local" not in kernel.ptx, "there is a slow path that uses memory"
    assert kernel.usage["REG"] <= registers
    assert kernel.usage["SHARED"] <= shared, "elements are shuffled through shared memory"
    assert kernel.mix["FFMA"] + kernel.mix["FMUL"] + kernel.mix["IMAD"] > 0, "the mix was not read"


@pytest.mark.parametrize("name", [*CAPABILITIES, NOISE])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_the_compiler_makes_of_it(arch, name):
    kernel = compile_kernel(name, arch)
    LINES.append(kernel.line())
    check_resources(kernel, registers=40)
    draws = name == NOISE or "seed" in CAPABILITIES[name]
    assert ("fma." in kernel.ptx) == draws, "the update must round as separate operations do"
    assert not re.search(r"\b(sin|cos|lg2|ex2)\.|\.approx", kernel.ptx), "approximations where exact ones are meant"
    assert ("sqrt.rn.f32" in kernel.ptx) == draws, "the interpreter's root is exact, and must be the device's"
    if name == NOISE:
        assert kernel.accesses("st") == {128: 1}
        return
    assert "max.NaN.f32" in kernel.ptx, "NaN would vanish in the clamp"
    assert "min.NaN.f32" in kernel.ptx, "NaN would vanish in the clamp"
    assert not re.search(r"\b(max|min)(\.ftz)?\.f32", kernel.ptx)

    types, loads, stores = CAPABILITIES[name], kernel.accesses("ld"), kernel.accesses("st")
    halves = sum(types.get(side, "*fp32") != "*fp32" for side in ("conditional", "unconditional"))
    outputs = 1 + ("unconditional" in types)
    remembers = "before" in types
    wide = 1 + ("z" in types) + remembers + outputs - halves
    assert loads[128] == wide, "a load of float32 is not 128 bits wide"
    assert stores[128] == 1 + remembers, "four elements are not stored at once"
    assert stores == ({128: 1 + remembers, 64: 2} if "feed" in types else {128: 1 + remembers})
    key = SCALARS["key"] if draws else 0
    if "plane" in types:
        assert loads[16] == 4  # gathered, element by element
    else:
        assert loads[64] == halves + key, "a load of half precision is not of four elements at once"
    scalars = SCALARS["row"] + (SCALARS["sigma"] if draws or "z" in types else 0) + SCALARS["g"] * remembers
    assert loads[32] == scalars, "a table is looked up"
    if "feed" in types:
        assert len(re.findall(r"cvt\.rn\.bf16", kernel.ptx)) >= 2, "the network's input is not rounded to nearest"


@pytest.mark.parametrize("warps", [2, 8])
@pytest.mark.parametrize("name", ["noise read", "guided half, drawn, fed"])
def test_the_other_choices_of_the_tuner(name, warps):
    """Two vectors a thread: half precision is then 128 bits wide too, by way of a kilobyte or two of shared memory."""
    kernel = compile_kernel(name, 90, warps, vectors=2)
    check_resources(kernel, registers=64, shared=2048 if name in HALF else 0)
    assert kernel.accesses("st")[128] == (4 if name in HALF else 2)
    assert max(kernel.accesses("ld")) == 128


def test_a_large_sample_is_addressed_with_64_bits():
    """And a small one is not, where positions are divided by the plane."""
    wide, narrow = compile_kernel("channels-last half", 90, wide=True), compile_kernel("channels-last half", 90)
    assert re.search(r"(div|rem)\.[us]64", wide.ptx)
    assert not re.search(r"(div|rem)\.[us]64", narrow.ptx)
    assert re.search(r"setp\.\w+\.s64", wide.ptx), "whether an element exists is asked in 32 bits"
    check_resources(wide, registers=64)
