"""What a few steps consist of, from torch.profiler: the products and their formats, the kernels, time by kind.

Facts only; a run of its own, never a timed one.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from bench.evidence import COMPILED_GRAPH
from sampler.noise import Noise

NETWORK, NOISE, UPDATE = "ddpm-bench: network", "ddpm-bench: noise", "ddpm-bench: update"
COMPILED_CALL = "## Call CompiledFxGraph"  # Inductor's own mark around a run of a graph
# The operators that compute (others only call them), on CPU and CUDA, eager and compiled
CONVOLUTIONS = re.compile(
    r"^(aten::(mkldnn_convolution|_slow_conv2d_forward|cudnn_convolution|miopen_convolution|_conv_depthwise2d"
    r"|slow_conv_dilated2d|convolution_overrideable)|mkldnn::_convolution_pointwise)"
)
PRODUCTS = re.compile(
    r"^(aten::(addmm|mm|bmm|baddbmm|addbmm|_scaled_dot_product_(flash|efficient|cudnn|fused)\w*)"
    r"|mkldnn::_linear_pointwise|mkl::_mkl_linear)"
)
KINDS = (  # the first that fits, of an operator's or a kernel's name
    ("noise", r"normal_|rand|philox"),
    ("convolution", r"conv|implicit_gemm|wgrad|winograd|cudnn.*fprop"),
    ("attention", r"attention|softmax|flash_fwd|fmha"),
    ("matrix product", r"addmm|::mm|bmm|linear|gemm|cublas"),
    ("normalisation", r"norm|var_mean|welford"),
    ("layout", r"copy_|::cat|contiguous|clone|reorder|nchwTo|nhwcTo|CatArray|pixel_|upsample"),
)
FORMATS = {"float": "float32", "double": "float64", "c10::BFloat16": "bfloat16", "c10::Half": "float16"}


class Happening(NamedTuple):
    """One event of the profiler, times in microseconds."""

    name: str
    start_us: float
    duration_us: float
    device: bool = False
    shapes: Any = ()
    formats: Any = ()

    @property
    def stop_us(self) -> float:
        return self.start_us + self.duration_us


@dataclass
class Profile:
    """What was seen in some steps; times in microseconds, of all of them together."""

    span_us: float = 0.0  # from the first step's start to the last one's end, on the deciding clock
    by_kind_us: dict[str, float] = field(default_factory=dict)
    launches: int = 0  # kernels launched from the host (CUDA), or operators called (CPU)
    products: list[list[Any]] = field(default_factory=list)
    kernels: dict[str, int] = field(default_factory=dict)
    copies: int = 0

    def json(self) -> dict[str, Any]:
        return {"span_us": round(self.span_us, 1), "launches": self.launches, "copies": self.copies,
                "by_kind_us": {kind: round(us, 1) for kind, us in self.by_kind_us.items()}}  # fmt: skip


def mark_network(network: nn.Module) -> None:
    """Let the profiler see when the network (or a copy made of it later) runs; a compiled step shows nothing of it."""
    open_ranges: list[Any] = []

    def enter(*_) -> None:
        if not torch.compiler.is_compiling():
            open_ranges.append(record_function(NETWORK))
            open_ranges[-1].__enter__()

    def leave(*_) -> None:
        if not torch.compiler.is_compiling():
            open_ranges.pop().__exit__(None, None, None)

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave)


class MarkedNoise:
    """A source of noise whose draws the profiler sees."""

    def __init__(self, source: Noise):
        self.source = source

    def draw(self, step: int, like: Tensor) -> Tensor:
        with record_function(NOISE):
            return self.source.draw(step, like)

    def select(self, start: int, stop: int) -> "MarkedNoise":
        return MarkedNoise(self.source.select(start, stop))


@contextmanager
def profiled(cuda: bool) -> Iterator[Profile]:
    """Profile what runs inside; the yielded profile is filled in at the end."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    found = Profile()
    with profile(activities=activities, record_shapes=True) as profiler, record_function("ddpm-bench: steps"):
        yield found
        if cuda:
            torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()  # the public events lack the number formats
    read(found, [
        Happening(e.name(), e.start_ns() / 1e3, e.duration_ns() / 1e3, e.device_type() != torch.autograd.DeviceType.CPU,
                  e.shapes(), e.dtypes())
        for e in events
    ], cuda)  # fmt: skip


def read(found: Profile, events: list[Happening], cuda: bool) -> None:
    """Fill in a profile from the events of some steps."""
    host = [e for e in events if not e.device]
    device = [e for e in events if e.device and not e.name.startswith("ddpm-bench")]
    found.products = _products(host)
    found.copies = sum("Memcpy HtoD" in e.name or "Memcpy DtoH" in e.name for e in device)
    steps = next(e for e in host if e.name == "ddpm-bench: steps")
    kernels = Counter(e.name for e in device if not e.name.startswith(("Memcpy", "Memset")))
    kernels[COMPILED_GRAPH] = sum(e.name.startswith(COMPILED_CALL) for e in host)
    found.kernels = dict(+kernels)
    if cuda:
        found.launches = sum(bool(re.match(r"cu(da)?(Launch|GraphLaunch)", e.name)) for e in host)
        by_kind: defaultdict[str, float] = defaultdict(float)
        for e in device:
            by_kind[kind_of(e.name)] += e.duration_us
        found.span_us = max((e.stop_us for e in device), default=0.0) - min((e.start_us for e in device), default=0.0)
        by_kind["idle"] = found.span_us - covered([(e.start_us, e.stop_us) for e in device])
        found.by_kind_us = dict(by_kind)
        return
    found.span_us = steps.duration_us
    operators = ("aten::", "mkl")
    found.launches = sum(
        e.name.startswith(operators) and not any(name.startswith(operators) for name in above)
        for e, _, above in own_times(host)
    )
    found.by_kind_us = _kinds_on_the_host(host, steps)


def _kinds_on_the_host(host: list[Happening], steps: Happening) -> dict[str, float]:
    """Each operator's own time by kind; outside the network it is the update's, unless noise; the rest is Python's."""
    marked = any(e.name == NETWORK for e in host)
    by_kind: defaultdict[str, float] = defaultdict(float)
    for e, own_us, above in own_times(host):
        if NOISE in above or e.name == NOISE:
            kind = "noise"
        elif e.name.startswith(COMPILED_CALL):
            kind = "compiled kernels" if not marked else "update"  # only the update is compiled beside a network
        elif e.name.startswith("ddpm-bench") and e.name != UPDATE:
            kind = "Python"
        elif e.name == UPDATE or (marked and NETWORK not in above):
            kind = "update"
        else:
            kind = kind_of(e.name)
        by_kind[kind] += own_us
    return dict(by_kind)


def kind_of(name: str) -> str:
    for kind, pattern in KINDS:
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "update" if "posterior" in name else "elementwise"


def _products(host: list[Happening]) -> list[list[Any]]:
    """(kind, number format, batch, how often) of the convolutions and matrix products."""
    counted: Counter[tuple] = Counter()
    for e in host:
        for kind, pattern in (("convolution", CONVOLUTIONS), ("matrix product", PRODUCTS)):
            if pattern.match(e.name):
                arguments = [(s, f) for s, f in zip(e.shapes, e.formats, strict=False) if s]
                number_format = FORMATS.get(arguments[-1][1], arguments[-1][1]) if arguments else "unknown"
                batch = arguments[0][0][0] if arguments else 0
                counted[kind, number_format, batch] += 1
    return [[*key, count] for key, count in sorted(counted.items())]


def own_times(events: list[Happening]) -> list[tuple[Happening, float, frozenset[str]]]:
    """Each event with its time less that of the events inside it, and the names of those it lies in (one thread)."""
    order = sorted((e for e in events if e.name != "[memory]"), key=lambda e: (e.start_us, -e.duration_us))
    own = [e.duration_us for e in order]
    above: list[frozenset[str]] = []
    open_: list[int] = []
    for i, e in enumerate(order):
        while open_ and order[open_[-1]].stop_us <= e.start_us:
            open_.pop()
        if open_:
            own[open_[-1]] -= e.duration_us
            above.append(above[open_[-1]] | {order[open_[-1]].name})
        else:
            above.append(frozenset())
        open_.append(i)
    return list(zip(order, own, above, strict=True))


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (start, stop) spans."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
