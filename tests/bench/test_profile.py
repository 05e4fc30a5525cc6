"""What is read from a profile: by made-up events, and once from the profiler itself."""

import pytest
import torch
from torch import nn

from bench import roof
from bench.clock import Reading
from bench.kinds import in_tf32, kind_of
from bench.profile import (
    DRAIN,
    LOOP,
    NETWORK,
    NOISE,
    STEPS,
    WAKE_KERNELS,
    WAKE_S,
    Happening,
    Loop,
    Profile,
    calls,
    covered,
    mark_network,
    own_times,
    products_of,
    profiled,
    read,
    wake_the_profiler,
)


def event(name: str, start: float, stop: float, device: bool = False, link: int = 0, mark: bool = False) -> Happening:
    return Happening(name, start, stop - start, device, link=link, annotation=mark)


ALL = event(STEPS, 0, 100)


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
        ALL, event(NOISE, 0, 10), event("aten::normal_", 1, 9),
        event(NETWORK, 10, 60), event("aten::conv2d", 10, 40), event("aten::mkldnn_convolution", 11, 40),
        event("aten::native_group_norm", 40, 50), event("aten::mul", 60, 80),
    ], cuda=False)  # fmt: skip
    kinds = {kind: us for kind, us in found.by_kind_us.items() if us}
    assert kinds == {"noise": 10, "convolution": 30, "normalisation": 10, "update": 20, "Python": 30}
    assert sum(kinds.values()) == found.span_us == 100


def launched(
    name: str, at: float, runs: tuple[float, float], link: int, by: str = "cudaLaunchKernel"
) -> list[Happening]:
    """A call on the host, and what it started on the device."""
    return [event(by, at, at + 1, link=link), event(name, *runs, device=True, link=link)]


def test_on_a_gpu_idle_is_the_span_less_the_union_of_the_kernels_and_gaps_are_what_the_host_caused_of_it() -> None:
    found = Profile()
    read(found, [
        ALL,
        *launched("sm90_xmma_fprop_implicit_gemm_f32f32", 0, (10, 30), 1),
        *launched("posterior", 1, (25, 40), 2),
        *launched("gemm", 2, (45, 50), 3),  # launched long before: the device took its time
        *launched("posterior", 54, (60, 70), 4),  # launched after it ran dry, at 50: 5 µs the host's, 5 its own
        event("nobody launched it", 72, 75, device=True),  # counted against the host
        event(STEPS, 10, 72, device=True, mark=True),
    ], cuda=True)  # fmt: skip
    assert found.span_us == 65
    assert found.by_kind_us["idle"] == 5 + 10 + 2
    assert found.gaps_us == 5 + 2
    assert found.update_us == 15 + 5 + 10  # its own time and the gap that it was waited for
    assert found.kernels["posterior"] == 2


GRAPH_CALL = "## Call CompiledFxGraph fwt ##"


def test_a_mark_on_the_device_is_no_kernel_and_hides_no_gap() -> None:
    """The profiler gives every annotation again over all that was started in it: a compiled step ran there twice."""
    found = Profile()
    read(found, [
        ALL, event(GRAPH_CALL, 1, 30, link=1),
        *launched("triton_poi_fused_0", 2, (10, 20), 1),
        *launched("posterior", 25, (30, 40), 2),
        event(GRAPH_CALL, 10, 40, device=True, link=1, mark=True),
        event("anybody's annotation", 0, 100, device=True, mark=True),
        event(STEPS, 10, 40, device=True, mark=True),
    ], cuda=True)  # fmt: skip
    assert found.kernels == {"triton_poi_fused_0": 1, "posterior": 1, "compiled graph": 1}
    assert {kind: us for kind, us in found.by_kind_us.items() if us} == {
        "compiled kernels": 10, "update": 10, "idle": 10,
    }  # fmt: skip
    assert (found.span_us, found.gaps_us, found.update_us) == (30, 6, 16)


def test_an_annotation_on_the_host_is_no_operator() -> None:
    found = Profile()
    read(found, [
        ALL, event("TorchDynamo Cache Lookup", 0, 5), event("Torch-Compiled Region: 0/0", 5, 60),
        event("AOTDispatcher Runtime Wrapper Prologue", 6, 10), event(GRAPH_CALL, 10, 50),
        event("mkldnn::_convolution_pointwise", 12, 32), event("ours::operator", 60, 70),
    ], cuda=False)  # fmt: skip
    kinds = {kind: us for kind, us in found.by_kind_us.items() if us}
    assert kinds == {"convolution": 20, "compiled kernels": 20, "elementwise": 10, "Python": 50}


def test_what_wakes_the_profiler_is_not_counted(monkeypatch) -> None:
    found, naps = Profile(), []
    device = Device(monkeypatch)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: naps.append(device))
    wake_the_profiler(naps.append)
    assert [nap for nap in naps if nap == "cuda"] == ["cuda"] * WAKE_KERNELS
    assert device.waits == WAKE_KERNELS
    assert sum(nap for nap in naps if nap != "cuda") == pytest.approx(WAKE_S)
    read(found, [event(STEPS, 50, 90), *launched("fill", 1, (2, 3), 1), *launched("posterior", 51, (52, 60), 2)], True)
    assert found.kernels == {"posterior": 1}


def test_the_loop_alone_is_read_and_not_what_is_made_ready_before_it() -> None:
    """Tables and keys are copied to the device before the loop: on a GPU those copies turned every row red."""
    found = Profile()
    read(found, [
        ALL, event(LOOP, 20, 60), event(DRAIN, 60, 80),
        *launched("Memcpy HtoD (Pageable -> Device)", 1, (2, 3), 1, by="cudaMemcpyAsync"),
        *launched("fill", 4, (5, 6), 2),
        *launched("first", 7, (8, 9), 3),
        *launched("second", 21, (22, 50), 4, by="cuLaunchKernelEx"),
        *launched("third", 23, (50, 70), 5, by="cudaGraphLaunch"),
        *launched("clone", 81, (82, 83), 6),
        *launched("Memcpy DtoH (Device -> Pageable)", 84, (85, 86), 7, by="cudaMemcpyAsync"),
    ], cuda=True)  # fmt: skip
    assert (found.launches, found.graph_launches, found.copies) == (1, 1, 0)
    assert found.span_us == 48
    assert found.gaps_us == 0
    assert found.kernels == dict.fromkeys(("fill", "first", "second", "third", "clone"), 1)
    found = Profile()
    read(found, [ALL, event(LOOP, 20, 60), *launched("Memcpy HtoD (…)", 21, (22, 23), 1)], cuda=True)
    assert found.copies == 1


def test_on_a_gpu_the_update_of_an_eager_step_is_what_is_launched_outside_the_network() -> None:
    """Its kernels are as elementwise as the network's: no name tells them apart."""
    found = Profile()
    read(found, [
        ALL, event(NETWORK, 0, 10), event(NOISE, 20, 30),
        *launched("vectorized_elementwise_kernel", 5, (6, 9), 1),
        *launched("vectorized_elementwise_kernel", 12, (13, 17), 2),
        *launched("vectorized_elementwise_kernel", 22, (23, 24), 3),
        *launched("vectorized_elementwise_kernel", 32, (33, 35), 4, by="cudaGraphLaunch"),
    ], cuda=True)  # fmt: skip
    kinds = {kind: us for kind, us in found.by_kind_us.items() if kind != "idle"}
    assert kinds == {"elementwise": 3 + 2, "update": 4, "noise": 1}
    assert found.update_us == 4 + 4  # and 4 µs in which the device waited for its launch


class Device:
    """A device that is waited for."""

    def __init__(self, monkeypatch):
        self.waits = 0
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def wait(self):
        self.waits += 1


@pytest.mark.parametrize("told", [range(11), (0, 5, 10)])
def test_the_loop_goes_from_the_end_of_the_first_step_to_that_of_the_last(told, monkeypatch) -> None:
    device = Device(monkeypatch)
    x = torch.ones(2)
    loop = Loop(10, cuda=True)
    with profiled(cuda=False) as found:
        x.exp()  # what is made ready
        for i in told:
            x.neg()
            loop(i, x)
        x.sin()
    assert loop.steps == 10
    assert device.waits == 2
    assert found.launches == len(told) - 1
    assert found.span_us > 0


@pytest.mark.parametrize(("name", "kind"), [
    ("aten::mkldnn_convolution", "convolution"), ("void cudnn::winograd_nonfused", "convolution"),
    ("aten::_softmax", "attention"), ("pytorch_flash::flash_fwd_kernel", "attention"),
    ("aten::addmm", "matrix product"),
    ("aten::native_group_norm", "normalisation"), ("aten::normal_", "noise"), ("aten::silu", "elementwise"),
    ("posterior_drawn", "update"), ("aten::cat", "layout"), ("aten::linear", "matrix product"),
    ("aten::randn", "noise"), ("aten::upsample_bilinear2d", "layout"),
    # as they are called on a GPU
    ("philox_normal", "noise"), ("posterior", "update"),
    ("void at::native::distribution_elementwise_grid_stride_kernel<float, 4, at::native::templates::cuda::"
     "normal_and_transform<...>", "noise"),
    ("void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<float>", "normalisation"),
    ("void at::native::(anonymous namespace)::ComputeFusedParamsCUDAKernel<float>", "normalisation"),
    ("nvjet_hsh_128x64_64x8_1x2_h_bz_TNT", "matrix product"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4>", "matrix product"),
    ("void cublasLt::splitKreduce_kernel<32, 16, int>", "matrix product"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x128x64", "attention"),
    ("fmha_cutlassF_f32_aligned_64x64_rf_sm80", "attention"),
    ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolution"),
    ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_s1688fprop_optimized_tf32_128x128_16x4_nhwc>", "convolution"),
    ("void implicit_convolve_sgemm<float, float, 128, 5, 5, 3>", "convolution"),
    ("void cudnn::ops::nchwToNhwcKernel<float, float, float, false, true>", "layout"),
    ("void at::native::elementwise_kernel<128, 2, at::native::direct_copy_kernel_cuda>", "layout"),
    ("triton_poi_fused_convolution_silu_3", "compiled kernels"),
    ("triton_red_fused_native_group_norm_0", "compiled kernels"),
    ("void at::native::vectorized_elementwise_kernel<4, at::native::sigmoid_kernel>", "elementwise"),
])  # fmt: skip
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(("kernel", "fast"), [
    ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16", True),
    ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4>", True),
    ("turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_nn", False),
    ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nchw_tilesize128x128x8", False),
    ("ampere_sgemm_128x64_nn", False), ("implicit_convolve_sgemm", False),
])  # fmt: skip
def test_tensorfloat_32_is_known_by_its_kernels(kernel: str, fast: bool) -> None:
    assert in_tf32({kernel: 3, "another": 2}) == 3 * fast


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


def test_calls_are_seen_without_the_profiler_as_it_sees_them() -> None:
    """Formats, batches and numbers; infinity among the arguments, which JSON does not know, included."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    x = torch.ones(7, 3, 8, 8)

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(x.clamp(-float("inf"), float("inf")).mul(float("nan")))

    with profiled(cuda=False) as found:
        work()
    with calls() as called:
        work()
    assert products_of(called) == found.products
    assert ["convolution", "bfloat16", 7, 1] in products_of(called)
    work()  # nobody looks any more
    with calls() as called:
        x.neg()
    assert [e.name for e in called if e.name.startswith("aten::")] == ["aten::neg"]


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
    monkeypatch.setattr(roof, "SIDE", {"cpu": 32})
    found = roof.measure(torch.device("cpu"), ("float32",))
    assert 1e8 < found["copy_bytes_per_s"] < 1e13
    assert 1e7 < found["matrix_flop_per_s"]["float32"] < 1e14
    assert 0.01 < found["call_us"] < 1000


def test_the_roof_is_of_numbers_as_they_come(monkeypatch) -> None:
    """On a GPU a product of ones, which toggles few bits, was an eighth faster than one of random numbers."""
    seen = []

    def mm(a, b, out):
        seen.extend((a, b))
        return out

    monkeypatch.setattr(roof, "COPY_MIB", 1)
    monkeypatch.setattr(roof, "SIDE", {"cpu": 64})
    monkeypatch.setattr(torch, "mm", mm)
    roof.measure(torch.device("cpu"), ("float32", "bfloat16"))
    assert {a.dtype for a in seen} == {torch.float32, torch.bfloat16}
    assert all(len(a.unique()) > 100 for a in seen)


def test_every_format_that_a_row_may_be_in_has_its_rate(monkeypatch) -> None:
    """TensorFloat-32 is switched on for its own alone."""
    rates = {}

    def best_s(do, device, calls=0):
        rates[len(rates)] = torch.backends.cuda.matmul.allow_tf32
        return 1.0

    monkeypatch.setattr(roof, "best_s", best_s)
    monkeypatch.setattr(roof, "COPY_MIB", 1)
    monkeypatch.setattr(roof, "SIDE", {"cpu": 8})
    found = roof.measure(torch.device("cpu"), roof.FORMATS["cuda"])
    assert list(found["matrix_flop_per_s"]) == ["float32", "tf32", "bfloat16", "float16"]
    assert [rates[i] for i in range(1, 5)] == [False, True, False, False]


@pytest.mark.parametrize(("device", "calls", "seconds"), [("cpu", 1, 8.0), ("cuda", 20, 0.2)])
def test_the_best_of_some_runs_is_taken_and_the_first_is_not_counted(device, calls, seconds, monkeypatch) -> None:
    """Of as many calls as make the reading of the clock small; by device events where there are any."""
    lengths = iter([0.001, 9.0, 5.0, 7.0, 4.0, 6.0])
    made, log = 0, []

    class Clock:
        def mark(self):
            return made

        def between(self, start, stop):
            log.append(stop - start)
            length = next(lengths)
            return Reading(decisive_s=length, wall_s=2 * length)

    def do() -> None:
        nonlocal made
        made += 1

    monkeypatch.setattr(roof, "clock_for", lambda device: Clock())
    assert roof.best_s(do, torch.device(device)) == pytest.approx(seconds)
    assert log == [calls] * 6
