"""`pytest bench/test_peers.py --benchmark-only`: our loops beside other implementations', and what is claimed of them.

Only where it is named: `pytest bench` measures our rows alone.
"""

import math

import pytest

from bench.clock import ReplayClock
from bench.peers import PEERS
from bench.peers_command import ROWS, counterpart, fastest, times_as_fast

SAME_PICTURE = 1e-4
clock = ReplayClock()


@pytest.mark.parametrize("peer_row", [*ROWS, *PEERS])
@pytest.mark.benchmark(timer=clock, group="time a step, beside other implementations")
def test_step(peer_row: str, benchmark, peers_measured) -> None:
    row = peers_measured.row(peer_row)
    if peer_row not in peers_measured.rows:
        pytest.skip("it guides, and there is no guidance")
    if row.status == "grey":
        pytest.skip(row.reason)
    assert row.status == "ok", f"{peer_row}: {row.reason or row.absence}"
    if row.probe_error is not None:
        assert row.probe_error <= SAME_PICTURE, f"{peer_row} draws another picture: {row.probe_error:.1e}"
    clock.load(row.step_s)
    benchmark.pedantic(clock.replay, rounds=len(row.step_s), iterations=1)
    if peer_row in PEERS:
        plain = times_as_fast(counterpart(peers_measured, peer_row), row)
        assert plain is not None, f"{peer_row} was timed in no process that our loop was timed in"
        benchmark.extra_info.update(steps=row.steps, picture_differs_by=row.probe_error, times_as_fast=plain.value)
        if math.isnan(plain.high):
            pytest.skip(f"one process gives no interval, so nothing is said of {peer_row}'s speed")
        assert not plain.high < 1, f"our loop is slower than {peer_row}: {plain}"
        ahead = times_as_fast(fastest(peers_measured, peer_row), row)
        assert ahead is not None
        assert not ahead.low <= 1, f"our fastest row of as many steps is not faster than {peer_row}: {ahead}"
