"""`pytest bench --benchmark-only --gate-against REV`: one test a row, judged against another revision.

Collected only with that option, and then instead of the speed-up table; pytest-benchmark gets this side's slices.
"""

import pytest

from bench.clock import ReplayClock
from bench.contenders import CONTENDERS
from bench.sequential_test import PASS, UNSURE

clock = ReplayClock()


@pytest.mark.parametrize("row", list(CONTENDERS))
@pytest.mark.benchmark(timer=clock, group="against the other revision")
def test_gate(row: str, benchmark, gated) -> None:
    judged = next((one for one in gated.rows if one.name == row), None)
    assert judged is not None, f"{row}: not judged{f': {gated.stopped}' if gated.stopped else ''}"
    if judged.skipped:
        pytest.skip(judged.skipped)
    if judged.pairs:
        clock.load([pair.this_s for pair in judged.pairs])
        benchmark.pedantic(clock.replay, rounds=len(judged.pairs), iterations=1)
        benchmark.extra_info.update(verdict=judged.verdict, slowdown=judged.slowdown, note=judged.note)
    assert not gated.contaminated, f"CONTAMINATED: {gated.contaminated}"
    if judged.verdict == UNSURE:
        pytest.skip(f"UNSURE: {judged.note}")
    assert judged.verdict == PASS, f"{judged.verdict}: {judged.note}"
