"""Times every way at every size, in rounds of random order, going round more sets of inputs than any cache holds.

A share of the copy above 1 can be: a CPU reads a line before it writes it, and a copy has the largest share of writes.

On a GPU the device first sleeps while the host launches, so that a short kernel is not timed as a launch; a way
that waits for the device in its call is timed with that wait. On a CPU process CPU time decides, as everywhere.
"""

import itertools
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from bench.clock import CpuClock
from bench.update.record import Point
from bench.update.ways import Call, Inputs, Way, verify

SAMPLE = (3, 64, 64)  # 48 KiB a sample of float32
# Of the state, in float32, the largest first: what a limit cuts off is then what matters least. On a GPU fewer, for
# each is compiled and tuned for itself, seconds before the first is timed
SIZES_MIB = {"cuda": (2048, 128, 8, 0.1), "cpu": (32, 8, 2, 0.5, 0.1)}
CACHES, MOST_SETS = 4, 512  # the sets together are this many times the last cache, and no more than that
ROUNDS = (5, 40)  # fewest and most, however long they take
SLICE_S = 1e-3  # a slice is as many calls as take about this long

Timer = Callable[[Call, Iterator[Inputs], int], float]  # seconds of a call, over so many


def cpu_timer(call: Call, inputs: Iterator[Inputs], calls: int) -> float:
    """CPU seconds of a call."""
    clock = CpuClock()
    start = clock.mark()
    for _ in range(calls):
        call(next(inputs))
    return clock.between(start, clock.mark()).decisive_s / calls


class CudaTimer:
    """Device seconds of a call, between two events that the device meets with the launches already queued."""

    CYCLES_PER_S = 2e9  # of the device's clock, or a little more
    LONGEST_SLEEP_S = 0.05

    def __init__(self) -> None:
        self.launch_s: dict[Call, float] = {}

    def __call__(self, call: Call, inputs: Iterator[Inputs], calls: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        sleep_s = min(2 * self.launch_s.get(call, 1e-3) * calls, self.LONGEST_SLEEP_S)
        torch.cuda._sleep(int(sleep_s * self.CYCLES_PER_S))
        host = time.perf_counter()
        start.record()
        for _ in range(calls):
            call(next(inputs))
        stop.record()
        self.launch_s[call] = (time.perf_counter() - host) / calls
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3 / calls


def timer_for(device: torch.device) -> Timer:
    return CudaTimer() if device.type == "cuda" else cpu_timer


def shape_of(size_mib: float) -> tuple[int, ...]:
    """The whole samples of 3×64×64 that are nearest to the size."""
    one = 4 * SAMPLE[0] * SAMPLE[1] * SAMPLE[2]
    return (max(1, round(size_mib * 2**20 / one)), *SAMPLE)


def last_cache_bytes(device: torch.device) -> int:
    """The device's L2 cache, or the CPU's largest; 32 MiB where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        if match := re.fullmatch(r"(\d+)([KMG])", path.read_text().strip()):
            sizes.append(int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes, default=32 << 20)


def sets_of(shape: tuple[int, ...], device: torch.device, cache_bytes: int) -> list[Inputs]:
    """Enough sets to be cold when their turn comes again, each with other numbers."""
    one = 16 * torch.Size(shape).numel()
    return [Inputs.draw(shape, device, i) for i in range(max(2, min(MOST_SETS, -(-CACHES * cache_bytes // one))))]


def time_size(
    ways: Sequence[Way], sets: Sequence[Inputs], device: torch.device, timer: Timer, budget_s: float, rng: random.Random
) -> list[Point]:
    """Every way on these inputs: checked, warmed up, then timed in rounds until the budget is spent.

    One way after another within a round, so that a change in the machine's pace meets them all. A way that
    raises is a point without seconds and with the reason.
    """
    shape, points = tuple(sets[0].x.shape), {}
    calls: dict[str, tuple[Call, int]] = {}
    round_about = itertools.cycle(sets)
    for way in ways:
        points[way.name] = Point(way.name, shape, way.bytes_per_element)
        try:
            call = way.make(device)
            verify(way, call, sets[0])
            timer(call, round_about, 2)
            once_s = timer(call, round_about, 2)
        except Exception as error:
            points[way.name].reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '?'}"
            continue
        calls[way.name] = call, max(1, min(100, round(SLICE_S / max(once_s, 1e-9))))
    stop_at = time.monotonic() + budget_s
    names = list(calls)
    for i in range(ROUNDS[1]):
        if i >= ROUNDS[0] and time.monotonic() > stop_at:
            break
        rng.shuffle(names)
        for name in names:
            points[name].seconds.append(timer(calls[name][0], round_about, calls[name][1]))
    return list(points.values())


def fits(shape: tuple[int, ...], free_bytes: int) -> bool:
    """Two sets, and what eager PyTorch needs in between, in three quarters of the memory that is free."""
    return 4 * torch.Size(shape).numel() * 14 < 0.75 * free_bytes


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) << 10 if match else 4 << 30
