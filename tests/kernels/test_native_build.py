"""Building the native kernel: two processes at once, no compiler, no place to put it, an older processor."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import native as kernel
from kernels import native_build
from sampler.noise import philox_4x32, philox_normal
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
LOAD = "from kernels.native_build import library; print(library().normal.restype)"


@pytest.fixture
def unbuilt(monkeypatch, tmp_path):
    """A process that has not loaded the kernel yet, with an empty cache folder."""
    monkeypatch.setenv("DDPM_BENCH_CACHE", str(tmp_path / "cache"))
    native_build.library.cache_clear()
    yield tmp_path / "cache"
    native_build.library.cache_clear()


def test_two_processes_race_on_an_empty_cache(unbuilt):
    command = [sys.executable, "-c", LOAD]
    racers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [racer.communicate(timeout=PATIENCE_S)[0].strip() for racer in racers] == ["None", "None"]
    (kept,) = unbuilt.iterdir()  # one library, and no leavings
    before = kept.stat().st_mtime_ns
    native_build.library()
    assert kept.stat().st_mtime_ns == before  # found, not built again


def test_no_compiler(unbuilt, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "install g++" in reason_not_available()
    x = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler"):
        kernel.native_posterior(x, x, x, torch.zeros(6))


def test_no_place_for_it(native, unbuilt):
    unbuilt.write_text("a file where the folder should be")
    reason = reason_not_available()
    assert str(unbuilt) in reason
    assert "DDPM_BENCH_CACHE" in reason


def test_a_library_that_does_not_load(native, unbuilt):
    built = native_build._built("g++", unbuilt)
    built.unlink()
    built.write_text("not a library")
    assert "does not load" in reason_not_available()


def test_a_source_that_does_not_compile(native, unbuilt, monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("int f( {")
    monkeypatch.setattr(native_build, "SOURCES", [broken])
    assert "does not compile" in reason_not_available()
    assert list(unbuilt.iterdir()) == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are flags of x86-64")
def test_a_processor_without_avx2_draws_the_same(native, unbuilt, monkeypatch):
    ids, step = torch.arange(3) + 2**35, 5
    monkeypatch.setattr(native_build, "FLAGS", [*native_build.FLAGS, "-mno-avx2", "-mno-fma", "-mno-avx"])
    counter = (torch.arange(70)[None], step, ids[:, None] & 0xFFFF_FFFF, ids[:, None] >> 32)
    assert torch.equal(kernel.native_words(7, ids, step, 70), torch.stack(philox_4x32(counter, (7, 0)), dim=-1))
    z = kernel.native_normal(7, ids, step, 280)
    torch.testing.assert_close(z, philox_normal(7, ids, step, 280), rtol=0, atol=1.5e-6)


def reason_not_available() -> str:
    reason = kernel.available()
    assert reason is not None
    return reason
