"""What Triton spends on our kernels: compiled for an architecture that is not here, and tuned by a made-up tuner."""

import pytest
import torch

from bench.first_call import TritonWork, triton_work
from kernels import fused_posterior

MISSING = fused_posterior.available(torch.device("cuda"))
needs_triton = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@needs_triton
def test_a_compilation_of_ours_is_counted_and_one_from_the_cache_is_none(tmp_path, monkeypatch) -> None:
    from tests.kernels.ahead_of_time import compile_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with triton_work() as cold:
        compile_kernel("plain", 90)
    with triton_work() as warm:
        compile_kernel("plain", 90)
    compile_kernel("plain", 80)  # after the watch: nobody's
    assert cold.compiled_now
    assert not warm.compiled_now
    assert 0 <= warm.compile_s < cold.compile_s
    assert cold.autotune_s == 0


@needs_triton
def test_what_the_tuner_takes_beyond_compiling_is_tuning(monkeypatch) -> None:
    from triton import knobs
    from triton.runtime.autotuner import Autotuner

    from bench import first_call

    now = 0.0
    monkeypatch.setattr(first_call.time, "perf_counter", lambda: now)

    class Source:
        class fn:
            __module__ = "kernels.posterior_kernel"

    class Elsewhere(Source):
        class fn:
            __module__ = "torch._inductor"

    class Times:
        total = 4_000_000  # µs

    def bench(tuner, *arguments, **options):
        nonlocal now
        for source in (Source, Elsewhere):
            knobs.compilation.listener(src=source, metadata={}, metadata_group={}, times=Times, cache_hit=False)
        now += 6.0
        return "timings"

    heard = []
    monkeypatch.setattr(Autotuner, "_bench", bench)
    monkeypatch.setattr(knobs.compilation, "listener", lambda **told: heard.append(told))
    with triton_work() as found:
        assert Autotuner._bench(None) == "timings"
    assert (found.compile_s, found.autotune_s, found.compiled_now) == (4.0, 2.0, True)
    assert len(heard) == 2  # whoever listened before still does
    assert Autotuner._bench is bench
    assert found.added_to({"compile_s": 1.0, "autotune_s": 1.0, "compiled_now": False}) == {
        "compile_s": 5.0, "autotune_s": 3.0, "compiled_now": True,
    }  # fmt: skip
    assert TritonWork().added_to({"compile_s": 0, "autotune_s": 0, "compiled_now": False})["compiled_now"] is False
