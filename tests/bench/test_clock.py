"""The clock that hands recorded durations to pytest-benchmark."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import clock as clock_of
from bench.clock import CpuClock, CudaClock, ReplayClock
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, os, pytest
from bench.clock import ReplayClock

clock = ReplayClock()

@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", ["even", "wide"])
def test_replay(benchmark, name):
    durations = json.loads(os.environ["DURATIONS"])[name]
    clock.load(durations)
    benchmark.pedantic(clock.replay, rounds=len(durations), iterations=1)
    clock.replay()  # a call too many
"""


def test_pytest_benchmark_sees_the_recorded_durations(tmp_path: Path) -> None:
    rng = random.Random(0)
    durations = {
        "even": [rng.uniform(0.009, 0.011) for _ in range(100)],
        "wide": [10 ** rng.uniform(-7, 7) for _ in range(200)],  # a running sum would lose the short ones
    }
    (tmp_path / "test_replay.py").write_text(PROGRAM)
    # --benchmark-cprofile calls the target once more, after the rounds
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=out.json",
         "--benchmark-save-data", "--benchmark-cprofile=tottime", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DURATIONS": json.dumps(durations)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert {b["params"]["name"] for b in stored} == set(durations)
    for benchmark in stored:
        wanted = durations[benchmark["params"]["name"]]
        stats = benchmark["stats"]
        assert stats["data"] == pytest.approx(wanted, rel=1e-12, abs=0)
        assert stats["total"] == pytest.approx(sum(wanted), rel=1e-12, abs=0)
        assert stats["rounds"] == len(wanted)


def test_no_time_passes_once_the_durations_are_spent() -> None:
    clock = ReplayClock()
    clock.load([2.0])
    for wanted in (2.0, 0.0, 0.0):
        start = clock()
        clock.replay()
        assert clock() - start == wanted
    clock.load([3.0])  # and it can be loaded again
    start = clock()
    clock.replay()
    assert clock() - start == 3.0


def test_cuda_clock_counts_neither_the_hosts_wake_up_nor_its_way_to_the_first_launch(monkeypatch) -> None:
    """On a device that works 5 ms, to a host that needs 1 ms to wake up and 1 ms to launch."""
    now = 0.0  # seconds
    busy_until = 0.0

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self):
            self.at = max(now, busy_until)

        def elapsed_time(self, stop) -> float:
            return (stop.at - self.at) * 1e3

    def synchronize():
        nonlocal now
        now = max(now, busy_until) + 1e-3

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(clock_of.time, "perf_counter", lambda: now)
    clock = CudaClock()
    start = clock.mark()
    busy_until = now + 5e-3
    now += 1e-3
    reading = clock.between(start, clock.mark())
    assert reading.decisive_s == pytest.approx(5e-3)
    assert reading.wall_s == pytest.approx(6e-3)  # the host between two waits


def test_cpu_clock_keeps_both_times_apart() -> None:
    cpu, wall = iter([1.0, 1.5]), iter([10.0, 12.0])
    clock = CpuClock(lambda: next(cpu), lambda: next(wall))
    reading = clock.between(clock.mark(), clock.mark())
    assert (reading.decisive_s, reading.wall_s) == (0.5, 2.0)
