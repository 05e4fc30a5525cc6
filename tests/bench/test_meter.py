"""The meters: exact for networks whose bytes are known on paper, on the CPU and through a fake of CUDA's allocator."""

import re
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench import memory, nursery
from bench.meter import CpuMeter, CudaMeter, Usage, allocations, driver_bytes, resident_bytes, unique_bytes
from bench.workload import workload
from sampler import schedule, trajectory
from sampler.generate import sample
from sampler.models import Model

MIB = 2**20


class TwoLayers(nn.Module):
    """y = relu(x W₁) W₂ without biases: 4·(8·64 + 64·8) bytes of weights."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 64, bias=False), nn.Linear(64, 8, bias=False)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


def test_the_peak_of_a_network_is_the_bytes_on_paper() -> None:
    meter = CpuMeter()
    with meter.watch() as made:
        network, x = TwoLayers(), torch.ones(16, 8)
    weights, state = 4 * 2 * 8 * 64, 4 * 16 * 8
    assert made.live_after == weights + state
    with torch.inference_mode(), meter.watch() as called:
        y = network(x)
    hidden = 4 * 16 * 64
    # relu's input and output live together; when the second layer's output is born, the input is gone
    assert called.live_peak == weights + state + 2 * hidden
    assert called.live_after == weights + state + 4 * y.numel()
    assert called.live_before == weights + state
    del network, x, y
    with meter.watch() as nothing:
        pass
    assert nothing.timeline == []


def test_a_compiled_function_is_metered_as_it_runs_and_not_as_it_would_eagerly() -> None:
    meter = CpuMeter()
    run = torch.compile(lambda x: (x + x) * x, backend="eager", fullgraph=True)
    x = torch.ones(1024)
    run(x)
    with meter.watch() as usage:
        run(x)
    assert usage.live_peak == 2 * 4096


def test_allocations_are_in_order_and_come_back() -> None:
    with allocations() as events:
        torch.ones(1000)
        torch.ones(500)
    assert [size for _, size in events] == [4000, -4000, 2000, -2000]
    assert [at for at, _ in events] == sorted(at for at, _ in events)


def test_a_contender_that_raises_ends_the_metering() -> None:
    with pytest.raises(ValueError, match="broke"), allocations():
        raise ValueError("broke")
    with allocations() as events:
        torch.ones(10)
    assert sum(size for _, size in events) == 0
    assert events


def test_held_memory_is_above_that_at_birth_and_sees_what_no_tensor_shows() -> None:
    now, peak = resident_bytes()
    assert 0 < now <= peak + MIB
    meter = CpuMeter()
    with meter.watch() as usage:
        hidden = bytearray(64 * MIB)
    assert usage.live_peak == 0
    assert 60 * MIB < usage.held < 100 * MIB
    del hidden


def test_shared_storage_is_counted_once() -> None:
    base = torch.ones(100)
    assert unique_bytes([base, base[:10], base.view(10, 10), torch.ones(1)]) == 404


class FakeCuda:
    """An allocator with the figures of a made-up run, and a library that keeps a workspace from its first product."""

    def __init__(self):
        self.allocated, self.peak, self.log, self.workspaces = 100, 100, [], 0

    def take(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)

    def product(self, workspace: int) -> None:
        if not self.workspaces:
            self.take(workspace)
            self.workspaces = workspace

    def release(self) -> None:
        self.allocated -= self.workspaces
        self.workspaces = 0

    def synchronize(self):
        pass

    def reset_peak_memory_stats(self):
        self.peak = self.allocated

    def memory_allocated(self):
        return self.allocated

    def max_memory_allocated(self):
        return self.peak

    def max_memory_reserved(self):
        return 4096

    @property
    def memory(self):
        return self

    def _record_memory_history(self, enabled="all", context="all"):
        self.log.append(enabled)

    def _snapshot(self):
        now_us = time.time_ns() / 1e3
        events = [("alloc", 7, -1e6), ("segment_alloc", 2048, 0), ("alloc", 300, 0), ("free_requested", 100, 1e5),
                  ("free_completed", 100, 2e5), ("alloc", 50, 5e5)]  # fmt: skip
        trace = [{"action": a, "size": size, "time_us": now_us + at} for a, size, at in events]
        return {"device_traces": [trace, []]}

    def memory_snapshot(self):
        return [
            {"total_size": 1024, "segment_pool_id": (0, 0)},
            {"total_size": 512, "segment_pool_id": (0, 7)},
            {"total_size": 256, "segment_pool_id": (1, 0)},
            {"total_size": 3},
        ]


def test_cuda_levels_and_the_pools_of_graphs() -> None:
    cuda = FakeCuda()
    meter = CudaMeter(cuda, driver=lambda: 9999, release=cuda.release)
    with meter.watch() as usage:
        cuda.allocated, cuda.peak = 150, 400
    assert (usage.live_before, usage.live_peak, usage.live_after) == (100, 400, 150)
    assert (usage.held, usage.graph_pools, usage.driver) == (4096, 768, 9999)
    assert meter.live == 150


@pytest.mark.parametrize("let_go", [False, True])
def test_a_librarys_workspace_is_no_tensor_in_whichever_call_it_comes_and_whoever_lets_it_go(let_go: bool) -> None:
    """33.8 MB of the first product of a process passed for weights, and a batch metered later had none."""
    cuda, workspace = FakeCuda(), 33_800_000
    meter = CudaMeter(cuda, driver=lambda: None, release=cuda.release)

    def step(activations: int, kept: int = 0) -> None:
        cuda.take(kept)
        cuda.product(workspace)
        cuda.take(activations)
        cuda.take(-activations)
        if let_go:  # as a compiler's graphs do, or a capture
            cuda.release()

    with meter.watch() as first:
        step(3000, kept=40)
    assert (first.live_before, first.live_after) == (100, 140)
    static = memory.Static(weights=100)
    static.keep(first, packs=False)
    assert (static.weights, static.state) == (100, 40)
    for activations in (3000, 1500, 6000):
        with meter.watch() as usage:
            step(activations)
        assert usage.workspace == (0 if let_go else workspace)
        assert usage.live_peak + usage.workspace == 140 + activations + workspace  # what a batch that fits must leave
        assert (usage.live_before, usage.live_after, meter.live) == (140, 140, 140)
        if not let_go:
            assert usage.live_peak == 140 + activations


def test_what_a_compiler_packs_is_weights_and_what_else_stays_is_state() -> None:
    static = memory.Static(weights=100, state=10)
    static.keep(Usage(live_before=110, live_after=150), packs=True)
    static.keep(Usage(live_before=150, live_after=157), packs=False)
    static.keep(Usage(live_before=157, live_after=107), packs=True)  # what was freed is nobody's
    assert (static.weights, static.state) == (140, 17)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_timeline_on_cuda_is_read_from_the_allocators_history(recorded: bool) -> None:
    """Of what happened inside; a history that somebody else keeps is left to him."""
    cuda = FakeCuda()
    meter = CudaMeter(cuda, driver=lambda: None, release=cuda.release)
    meter.is_recorded = recorded
    with meter.watch(timeline=True) as usage:
        pass
    assert usage.timeline == [(0.0, 400), (pytest.approx(0.2), 300), (pytest.approx(0.5), 350)]
    assert cuda.log == ([] if recorded else ["all", None])
    with meter.watch() as usage:
        pass
    assert usage.timeline == []


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self, processes, error=None):
        self.processes, self.error = processes, error

    def nvmlInit(self):
        if self.error:
            raise self.error

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self.processes


def test_the_driver_tells_of_this_process_alone_or_not_at_all() -> None:
    import os

    mine, other = SimpleNamespace(pid=os.getpid(), usedGpuMemory=7), SimpleNamespace(pid=1, usedGpuMemory=9)
    assert driver_bytes(FakeNvml([other, mine])) == 7
    assert driver_bytes(FakeNvml([other])) is None
    assert driver_bytes(FakeNvml([], FakeNvml.NVMLError("no driver"))) is None


def tiny_model() -> Model:
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, t, condition):
            return self.mix(x)

    return Model("tiny", Network(), (1, 8, 8), schedule.linear())


def peak_of(batches: int, network_of: Model) -> tuple[int, int]:
    """Peak live bytes beyond the finished pictures while sampling so many batches of four."""
    path = trajectory.ancestral(network_of.schedule, (900, 500, 100))
    with allocations() as events:
        pictures = sample(network_of, path, count=4 * batches, batch_size=4, progress=False).images
    live, peak = 0, 0
    for _, size in events[:-1]:
        live += size
        peak = max(peak, live)
    return peak, pictures.numel() * 4


def test_fifty_batches_take_no_more_than_two() -> None:
    model = tiny_model()
    peak_of(2, model)
    (few, few_pictures), (many, many_pictures) = peak_of(2, model), peak_of(50, model)
    # finished pictures move to the host, which is this memory: once each, and once more when joined at the end
    assert many - 2 * many_pictures <= few
    assert few_pictures * 25 == many_pictures


def test_fifty_batches_of_a_network_that_hoards_are_seen() -> None:
    model = tiny_model()
    hoard: list[torch.Tensor] = []
    model.network.register_forward_hook(lambda module, inputs, out: hoard.append(out))
    few, _ = peak_of(2, model)
    many, pictures = peak_of(50, model)
    assert many - 2 * pictures > few


def test_the_fit_is_exact_for_exact_points_and_predicts_the_largest_batch() -> None:
    points = [(b, s, 1000 + 64 * b + 80 * s) for b, s in ((1, 2), (4, 2), (8, 2), (4, 6))]
    fit = memory.fit(points)
    assert (fit.fixed, fit.per_image, fit.per_step) == pytest.approx((1000, 64, 80))
    assert fit.error < 1e-9
    assert fit.peak(4, 6) == pytest.approx(1000 + 256 + 480)
    assert fit.largest_batch(1000 + 80 * 10 + 64 * 33 + 1, steps=10) == 33
    assert fit.largest_batch(10, steps=10) == 0
    assert memory.fit(points[:3]) is None  # one number of steps: nothing is known of what a step adds
    bent = memory.fit([*points, (16, 2, 5000)])
    assert bent.error > 0.05


def test_a_batch_that_did_not_fit_is_told_with_what_it_needed_and_what_there_was() -> None:
    """Foreseen from small batches afterwards, in the process in which it failed."""
    events: list[dict] = []
    task = {"workload": workload("smoke", batch=64).json(), "plant": "tests.bench.planted"}
    order = {"row": "planted-large", "looks": ["first_call"]}
    nursery._inspect(task, order, lambda **event: events.append(event))
    (error,) = [e for e in events if e["event"] == "error"]
    needed = re.fullmatch(r"out of memory at batch 64: needed about ([\d.]+) MiB, had [\d.,]+ GiB", error["message"])
    assert needed, error["message"]
    assert 2 < float(needed[1]) < 100
    order["row"], task["workload"]["batch"] = "planted-greedy", 1  # no batch fits
    nursery._inspect(task, order, lambda **event: events.append(event))
    assert events[-1]["message"].startswith("out of memory at batch 1: RuntimeError: DefaultCPUAllocator")


def test_a_thinned_timeline_keeps_its_peak() -> None:
    line = [(i / 1e3, (i * 7919) % 10_007) for i in range(10_000)]
    thin = memory.thinned(line, 100)
    assert len(thin) <= 100
    assert max(live for _, live in thin) == max(live for _, live in line)
    assert memory.thinned([]) == []


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))


def test_parts_add_up_to_what_is_held() -> None:
    usage = Usage(live_peak=1000, held=1500)
    parts = memory.parts(usage, memory.Static(weights=600, state=50), in_the_loop=100)
    assert parts == {"weights": 600, "state and noise": 150, "activations": 250, "workspace": 500}
    assert sum(parts.values()) == usage.held
    assert tuple(parts) == memory.PARTS
