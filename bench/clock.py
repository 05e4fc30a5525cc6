"""Clocks: what a slice is timed with, and the clock that replays recorded slices to pytest-benchmark."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


@dataclass(frozen=True)
class Reading:
    """The time between two marks, in seconds, by the deciding clock and by the wall."""

    decisive_s: float
    wall_s: float


class CpuClock:
    """Process CPU time decides; wall time is kept beside it."""

    name = "process CPU time"

    def __init__(self, cpu: Callable[[], float] = time.process_time, wall=time.perf_counter):
        self._cpu, self._wall = cpu, wall

    def mark(self) -> tuple[float, float]:
        return self._cpu(), self._wall()

    def between(self, start, stop) -> Reading:
        return Reading(stop[0] - start[0], stop[1] - start[1])


class CudaMark(NamedTuple):
    """A moment at which the device is idle: `end` is met before the host waits for it, `begin` after it has waited."""

    end: Any  # torch.cuda.Event
    begin: Any
    wall_s: float


class CudaClock:
    """Device events decide; a mark waits for the device, so its wall time is host time in between.

    A mark is two events around the wait: what began at a mark is counted from after it, and what stops at one up to
    before it. The host's wake-up from a wait is thus in no slice.
    """

    name = "CUDA events"

    def mark(self) -> CudaMark:
        end, begin = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        end.record()
        torch.cuda.synchronize()
        wall_s = time.perf_counter()
        begin.record()
        return CudaMark(end, begin, wall_s)

    def between(self, start: CudaMark, stop: CudaMark) -> Reading:
        return Reading(start.begin.elapsed_time(stop.end) / 1e3, stop.wall_s - start.wall_s)


def clock_for(device: str):
    """The clock for a device."""
    return CudaClock() if torch.device(device).type == "cuda" else CpuClock()


class ReplayClock:
    """Both the timer and the target of a pytest-benchmark test: it hands out recorded durations.

    `benchmark.pedantic(clock.replay, rounds=len(durations), iterations=1)` with this clock as the timer
    makes pytest-benchmark see exactly the durations that were recorded, one a round.
    """

    def __init__(self) -> None:
        self._now_s, self._passed = 0.0, False
        self._left: list[float] = []

    def load(self, durations_s: Sequence[float]) -> None:
        """Start again with these durations."""
        self._now_s, self._passed, self._left = 0.0, False, list(reversed(durations_s))

    def __call__(self) -> float:
        if not self._passed:  # the start of a round: from zero, so that the stop reads the duration itself
            self._now_s = 0.0
        self._passed = False
        return self._now_s

    def replay(self) -> None:
        """Let the next recorded duration pass. Once they are spent (a profiler's extra call), none does."""
        if self._left:
            self._now_s += self._left.pop()
            self._passed = True
