"""Memory meters: bytes of live tensors from the allocator's own events, and what the process holds besides.

On a CPU a meter reads the profiler's allocation events, with every other event switched off: a dispatch mode would
make compiled steps run eagerly, and sampling would miss the peak. On CUDA the caching allocator keeps the figures.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.autograd import _disable_profiler, _enable_profiler, _prepare_profiler
from torch.autograd.profiler import profile

from bench import nvml as nvml_of
from sampler.graphs import release_workspaces


@dataclass
class Usage:
    """Memory while something ran, in bytes.

    live_*: tensors. held: peak of what the process keeps for them: resident memory above that at the meter's
    birth (CPU), or the allocator's reserve (CUDA). workspace: of that, what cuBLAS took and kept. graph_pools:
    reserved by CUDA graphs. driver: of the process, by NVML, None where it does not say. timeline: (seconds, live
    bytes, cuBLAS's among them) at each change.
    """

    live_before: int = 0
    live_peak: int = 0
    live_after: int = 0
    held: int = 0
    workspace: int = 0
    graph_pools: int | None = None
    driver: int | None = None
    timeline: list[tuple[float, int]] = field(default_factory=list)


class CpuMeter:
    """Counts from its birth; what was allocated before does not exist for it."""

    def __init__(self, resident: Callable[[], tuple[int, int]] | None = None):
        self.live = 0
        self._resident = resident or resident_bytes
        self._at_birth = self._resident()[0]

    @contextmanager
    def watch(self, timeline: bool = True) -> Iterator[Usage]:
        """Meter what runs inside; the yielded usage is filled in at the end, its timeline always."""
        usage = Usage(live_before=self.live)
        forget_peak()
        with allocations() as events:
            yield usage
        began_ns = events[0][0] if events else 0
        so_far = itertools.accumulate((size for _, size in events), initial=usage.live_before)
        next(so_far)
        usage.timeline = [((at - began_ns) / 1e9, live) for (at, _), live in zip(events, so_far, strict=True)]
        usage.live_peak = max([usage.live_before, *(live for _, live in usage.timeline)])
        self.live = usage.live_after = usage.timeline[-1][1] if usage.timeline else usage.live_before
        usage.held = self.held_peak()

    def held_peak(self) -> int:
        """Peak of resident bytes above those at the meter's birth, since the peak was last forgotten."""
        return self._resident()[1] - self._at_birth


@contextmanager
def allocations() -> Iterator[list[tuple[int, int]]]:
    """(time in ns, bytes; negative when freed) of each allocation of a CPU tensor inside, in order."""
    # the public profiler records every operator too, which costs a hundred times as much and moves the peak
    config = profile(profile_memory=True).config()
    events: list[tuple[int, int]] = []
    activities = {torch.profiler.ProfilerActivity.CPU}
    _prepare_profiler(config, activities)
    _enable_profiler(config, activities, {torch._C._profiler.RecordScope.USER_SCOPE})  # type: ignore[call-arg]
    try:
        yield events
    finally:
        recorded = _disable_profiler().events()
        found = [(e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]"]  # type: ignore[attr-defined]
        events.extend(sorted(found, key=lambda event: event[0]))


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process now, and its peak since it was last forgotten (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak() -> None:
    """Start the peak of resident memory anew (proc(5), clear_refs); without the right to, it stays the older peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


class CudaMeter:
    """The caching allocator's own figures, CUDA-graph pools apart, and the driver's for the process.

    cuBLAS takes a workspace of some 32 MiB for each stream at its first product and keeps it, until somebody (Inductor,
    or a capture) lets it go. So every watch begins without one and takes what it finds at its end for no tensor: else
    that of the first call would pass for weights. cuda: `torch.cuda`; driver(): bytes that NVML reports for this
    process, or None; release(): lets the workspaces go.
    """

    def __init__(
        self,
        cuda: Any = torch.cuda,
        driver: Callable[[], int | None] | None = None,
        release: Callable[[], None] = release_workspaces,
    ):
        self.cuda, self.driver, self.release = cuda, driver or driver_bytes, release
        release()
        self.live = cuda.memory_allocated()
        self.is_recorded = False  # by somebody else, who will want the history

    @contextmanager
    def watch(self, timeline: bool = False) -> Iterator[Usage]:
        """Meter what runs inside. timeline: from the allocator's history, which costs a little of each allocation."""
        self.cuda.synchronize()
        self.release()
        self.cuda.reset_peak_memory_stats()
        usage = Usage(live_before=self.cuda.memory_allocated())
        began_us = time.time_ns() / 1e3
        if timeline and not self.is_recorded:
            self.cuda.memory._record_memory_history(context=None)
        yield usage
        self.cuda.synchronize()
        if timeline:
            events = itertools.chain(*self.cuda.memory._snapshot()["device_traces"])
            usage.timeline = timeline_of([e for e in events if e["time_us"] >= began_us], usage.live_before)
        if timeline and not self.is_recorded:
            self.cuda.memory._record_memory_history(enabled=None)
        peak, allocated = self.cuda.max_memory_allocated(), self.cuda.memory_allocated()
        usage.held, usage.driver = self.cuda.max_memory_reserved(), self.driver()
        self.release()
        usage.live_after = self.cuda.memory_allocated()
        usage.workspace = allocated - usage.live_after
        usage.live_peak = max(usage.live_before, usage.live_after, peak - usage.workspace)
        # segments of a private pool carry its id, those of the common pool (0, 0)
        usage.graph_pools = sum(
            segment["total_size"]
            for segment in self.cuda.memory_snapshot()
            if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0)
        )
        self.live = usage.live_after

    def held_peak(self) -> int:
        return self.cuda.max_memory_reserved()


def timeline_of(events: Sequence[dict[str, Any]], live: int) -> list[tuple[float, int]]:
    """(seconds, live bytes) at each change, from events of the CUDA allocator's history; live: bytes before them."""
    signs = {"alloc": 1, "free_completed": -1}
    changes = [(e["time_us"], signs[e["action"]] * e["size"]) for e in events if e["action"] in signs]
    so_far = itertools.accumulate((size for _, size in changes), initial=live)
    next(so_far)
    return [((at - changes[0][0]) / 1e6, now) for (at, _), now in zip(changes, so_far, strict=True)]


def driver_bytes(nvml: Any = None, device: int = 0) -> int | None:
    """Bytes of device memory that the driver counts for this process; None where NVML does not tell."""
    nvml = nvml_of.module(nvml)
    try:
        handle = nvml_of.handle(device, nvml)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    except nvml.NVMLError:
        return None
    return mine[0] if mine else None  # in a container the driver may know the process by another number


def meter_for(device: torch.device):
    """The meter for a device."""
    return CudaMeter(driver=lambda: driver_bytes(device=device.index or 0)) if device.type == "cuda" else CpuMeter()


def unique_bytes(tensors) -> int:
    """Bytes of the distinct storages of some tensors."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
