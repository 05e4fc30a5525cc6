"""What is read from a profile: by made-up events, and once from the profiler itself."""

import pytest
import torch
from torch import nn

from bench import roof
from bench.profile import NETWORK, NOISE, Happening, Profile, covered, kind_of, mark_network, own_times, profiled, read


def event(name: str, start: float, stop: float, device: bool = False, shapes=(), formats=()) -> Happening:
    return Happening(name, start, stop - start, device, shapes, formats)


STEPS = event("ddpm-bench: steps", 0, 100)


def test_own_time_is_what_no_event_inside_took() -> None:
    events = [event("a", 0, 10), event("b", 1, 4), event("c", 2, 3), event("d", 4, 6), event("e", 20, 25)]
    assert {e.name: (own, above) for e, own, above in own_times(events)} == {
        "a": (5, frozenset()), "b": (2, {"a"}), "c": (1, {"a", "b"}), "d": (2, {"a"}), "e": (5, frozenset()),
    }  # fmt: skip


def test_covered_is_the_length_of_the_union() -> None:
    assert covered([(0, 10), (5, 12), (20, 21), (6, 7)]) == 13
    assert covered([]) == 0


def test_time_on_a_cpu_is_told_apart_by_where_and_what() -> None:
    found = Profile()
    read(found, [
        STEPS, event(NOISE, 0, 10), event("aten::normal_", 1, 9),
        event(NETWORK, 10, 60), event("aten::conv2d", 10, 40), event("aten::mkldnn_convolution", 11, 40),
        event("aten::native_group_norm", 40, 50), event("aten::mul", 60, 80),
    ], cuda=False)  # fmt: skip
    kinds = {kind: us for kind, us in found.by_kind_us.items() if us}
    assert kinds == {"noise": 10, "convolution": 30, "normalisation": 10, "update": 20, "Python": 30}
    assert sum(kinds.values()) == found.span_us == 100


def test_on_a_gpu_gaps_are_the_span_less_the_union_of_the_kernels() -> None:
    found = Profile()
    read(found, [
        STEPS, event("cudaLaunchKernel", 0, 1), event("cuLaunchKernelEx", 1, 2), event("cudaGraphLaunch", 2, 3),
        event("cudaMemcpyAsync", 3, 4),
        event("sm90_xmma_fprop_implicit_gemm_tf32f32", 10, 30, device=True),
        event("posterior", 25, 40, device=True), event("posterior", 60, 70, device=True),
        event("Memcpy DtoH (Device -> Pageable)", 70, 72, device=True),
        event("ddpm-bench: steps", 10, 72, device=True),
    ], cuda=True)  # fmt: skip
    assert found.launches == 3
    assert found.copies == 1
    assert found.span_us == 62
    assert found.by_kind_us["idle"] == 20
    assert found.by_kind_us["update"] == 25
    assert found.kernels["posterior"] == 2


@pytest.mark.parametrize(("name", "kind"), [
    ("aten::mkldnn_convolution", "convolution"), ("void cudnn::winograd_nonfused", "convolution"),
    ("aten::_softmax", "attention"), ("pytorch_flash::flash_fwd_kernel", "attention"),
    ("aten::addmm", "matrix product"),
    ("aten::native_group_norm", "normalisation"), ("aten::normal_", "noise"), ("aten::silu", "elementwise"),
    ("posterior_drawn", "update"), ("aten::cat", "layout"),
])  # fmt: skip
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("number_format", [torch.float32, torch.bfloat16])
def test_the_products_of_a_network_are_seen_with_their_formats_and_batch(number_format) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5)).to(number_format)
    mark_network(network)
    x = torch.ones(7, 3, 8, 8, dtype=number_format)
    with torch.inference_mode(), profiled(cuda=False) as found:
        network(x)
    name = str(number_format).removeprefix("torch.")
    assert [p for p in found.products if p[0] == "convolution"] == [["convolution", name, 7, 1]]
    assert [p[1] for p in found.products if p[0] == "matrix product"] == [name]
    assert found.by_kind_us["convolution"] > 0
    assert found.copies == 0


def test_an_autocast_is_seen_where_it_computes_and_not_where_it_is_called() -> None:
    network = nn.Conv2d(1, 4, 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), profiled(cuda=False) as found:
        network(torch.ones(2, 1, 8, 8))
    assert found.products == [["convolution", "bfloat16", 2, 1]]


class OneConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 4, 3, padding=1, bias=False)

    def forward(self, x, t, condition):
        return self.mix(x)


def test_work_is_counted_as_the_definition_has_it() -> None:
    x = torch.ones(3, 2, 8, 8)
    asked = roof.work(OneConvolution(), x, torch.zeros(3), None)
    assert asked["flop"] == 2 * (3 * 4 * 8 * 8) * (2 * 3 * 3)
    weights, out = 4 * 2 * 9, 3 * 4 * 64
    assert asked["unfused_bytes"] == 4 * (x.numel() + weights + out)


def test_the_roof_of_this_machine_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(roof, "COPY_MIB", 1)
    monkeypatch.setattr(roof, "SIDE", 32)
    found = roof.measure(torch.device("cpu"), (torch.float32,))
    assert 1e8 < found["copy_bytes_per_s"] < 1e13
    assert 1e7 < found["matrix_flop_per_s"]["float32"] < 1e14
    assert 0.01 < found["call_us"] < 1000


def test_the_best_of_some_runs_is_taken_and_the_first_is_not_counted(monkeypatch) -> None:
    now, lengths = 0.0, iter([0.001, 9.0, 5.0, 7.0, 4.0, 6.0])
    monkeypatch.setattr(roof.time, "perf_counter", lambda: now)

    def do() -> None:
        nonlocal now
        now += next(lengths)

    assert roof.best_s(do, torch.device("cpu")) == pytest.approx(4.0)
