"""One test a row: hands the recorded slices to pytest-benchmark, and fails where the row failed."""

import pytest

from bench.clock import ReplayClock
from bench.contenders import CONTENDERS
from bench.cost import Cost
from bench.report.table import quality_in_short

clock = ReplayClock()


@pytest.mark.parametrize("row", list(CONTENDERS))
@pytest.mark.benchmark(timer=clock, group="time a step")
def test_step(row: str, benchmark, measured) -> None:
    figures = measured.row(row)
    if figures.status == "grey":
        pytest.skip(figures.reason)
    assert figures.status == "ok", f"{row}: {figures.reason or figures.absence}"
    clock.load(figures.step_s)
    benchmark.pedantic(clock.replay, rounds=len(figures.step_s), iterations=1)
    speedup = figures.speedup
    benchmark.extra_info.update(
        steps=figures.steps, speedup=speedup.value, speedup_low=speedup.low, speedup_high=speedup.high,
        whole_run_s=figures.whole_run_s, whole_run_timed=figures.whole_run_timed_s is not None,
        same_noise_error=figures.probe_error, quality=quality_in_short(figures), evidence=Cost(figures).evidence,
        break_even_images=Cost(figures).break_even_over_reference,
        steady_live_bytes=(Cost(figures).phase("steady") or {}).get("live_peak"),
    )  # fmt: skip
