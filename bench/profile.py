"""What a few steps consist of, from torch.profiler: the products and their formats, the kernels, time by kind.

Facts only; a run of its own, never a timed one. Time, launches and copies are those of the loop alone, which goes from
the end of the first step to that of the last: what is made ready before it (tables, a noise key, a graph's inputs) is
made once in a run and not in every step.
"""

import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile, record_function

from bench.evidence import COMPILED_GRAPH
from bench.kinds import kind_of
from sampler import strict_json
from sampler.noise import Noise

NETWORK, NOISE, UPDATE = "ddpm-bench: network", "ddpm-bench: noise", "ddpm-bench: update"
STEPS, LOOP, DRAIN = "ddpm-bench: steps", "ddpm-bench: loop", "ddpm-bench: the device finishes"
KERNEL_LAUNCH, GRAPH_LAUNCH = re.compile(r"cu(da)?Launch(?!Host)"), re.compile(r"cu(da)?GraphLaunch")
ON_THE_HOST = re.compile(r"cu(da)?[A-Z]")  # a call of CUDA's runtime or driver; operators are numbered otherwise
COMPILED_CALL = "## Call CompiledFxGraph"  # Inductor's own mark around a run of a graph
OPERATOR = re.compile(r"\w+::|mkl")  # on a CPU; whatever else is there is an annotation, of Dynamo's for instance
WAKE_KERNELS, WAKE_S = 3, 0.05  # before the steps: CUPTI of CUDA 13.0 may lose the first kernels of a session
# The operators that compute (others only call them), on CPU and CUDA, eager and compiled
CONVOLUTIONS = re.compile(
    r"^(aten::(mkldnn_convolution|_slow_conv2d_forward|cudnn_convolution|miopen_convolution|_conv_depthwise2d"
    r"|slow_conv_dilated2d|convolution_overrideable)|mkldnn::_convolution_pointwise)"
)
PRODUCTS = re.compile(
    r"^(aten::(addmm|mm|bmm|baddbmm|addbmm|_scaled_dot_product_(flash|efficient|cudnn|fused)\w*)"
    r"|mkldnn::_linear_pointwise|mkl::_mkl_linear)"
)
FORMATS = {"float": "float32", "double": "float64", "c10::BFloat16": "bfloat16", "c10::Half": "float16"}


class Happening(NamedTuple):
    """One event of the profiler, times in microseconds. link: the number that a launch and what it started share.

    annotation: a mark around work and no work, which the profiler gives again on the device, over what was started.
    """

    name: str
    start_us: float
    duration_us: float
    device: bool = False
    shapes: Any = ()
    formats: Any = ()
    link: int = 0
    annotation: bool = False

    @property
    def stop_us(self) -> float:
        return self.start_us + self.duration_us


@dataclass
class Profile:
    """What was seen in some steps; times in microseconds, of all of them together.

    Of the loop alone: span_us, from its start to its end on the deciding clock; by_kind_us; launches, of kernels from
    the host (CUDA) or calls of operators (CPU); graph_launches; copies, between host and device; gaps_us, in which the
    device waited for the host; update_us, the update's own time and the gaps before it. Of all: products and kernels.
    """

    span_us: float = 0.0
    by_kind_us: dict[str, float] = field(default_factory=dict)
    launches: int = 0
    graph_launches: int = 0
    copies: int = 0
    gaps_us: float | None = None
    update_us: float | None = None
    products: list[list[Any]] = field(default_factory=list)
    kernels: dict[str, int] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        times = {"span_us": self.span_us, "gaps_us": self.gaps_us, "update_us": self.update_us}
        return {
            **{name: round(us, 1) for name, us in times.items() if us is not None},
            "launches": self.launches, "graph_launches": self.graph_launches, "copies": self.copies,
            "by_kind_us": {kind: round(us, 1) for kind, us in self.by_kind_us.items()},
        }  # fmt: skip


class Loop:
    """An `after_step` that lets the profiler see the loop; the device is waited for at its both ends.

    last: position of the last step. steps: how many lie between the end of the first and the end of the last.
    """

    def __init__(self, last: int, cuda: bool):
        self.last, self.steps = last, 0
        self._wait = torch.cuda.synchronize if cuda else lambda: None
        self._first: int | None = None
        self._range = record_function(LOOP)

    def __call__(self, i: int, x: Tensor) -> None:
        if self._first is None:
            self._wait()
            self._first = i
            self._range.__enter__()
        if i == self.last:
            self._range.__exit__(None, None, None)
            self.steps = i - self._first
            with record_function(DRAIN):
                self._wait()


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
    with profile(activities=activities, record_shapes=True) as profiler:
        if cuda:
            wake_the_profiler()
        with record_function(STEPS):
            yield found
            if cuda:
                torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()  # the public events lack the number formats
    read(found, [
        Happening(e.name(), e.start_ns() / 1e3, e.duration_ns() / 1e3, e.device_type() != torch.autograd.DeviceType.CPU,
                  e.shapes(), e.dtypes(), e.correlation_id(), e.is_user_annotation())
        for e in events
    ], cuda)  # fmt: skip


def wake_the_profiler(sleep=time.sleep) -> None:
    """Launch kernels that nobody will miss: a session's first ones may get no time, and are dropped (pytorch #192021).

    Never by a session of their own, for of a second one in a process not every launch finds its kernels.
    """
    for _ in range(WAKE_KERNELS):
        torch.zeros(1, device="cuda")
        torch.cuda.synchronize()
        sleep(WAKE_S / WAKE_KERNELS)


def read(found: Profile, events: list[Happening], cuda: bool) -> None:
    """Fill in a profile from the events of some steps; where nobody marked the loop, it is all of them."""
    host = [e for e in events if not e.device]
    steps = next(e for e in host if e.name == STEPS)
    device = [e for e in events if e.device and not e.annotation and e.start_us >= steps.start_us]
    found.products = products_of(host)
    kernels = Counter(e.name for e in device if not e.name.startswith(("Memcpy", "Memset")))
    kernels[COMPILED_GRAPH] = sum(e.name.startswith(COMPILED_CALL) for e in host)
    found.kernels = dict(+kernels)
    marks = {e.name: e for e in host if e.name in (STEPS, LOOP, DRAIN)}
    loop = marks.get(LOOP, steps)
    if cuda:
        until = marks.get(DRAIN, loop).stop_us
        here = sorted((e for e in device if loop.start_us <= e.start_us < until), key=lambda e: e.start_us)
        _read_the_device(found, [e for e in host if loop.start_us <= e.start_us < loop.stop_us], here)
    else:
        _read_the_host(found, host, loop)


def _read_the_device(found: Profile, host: list[Happening], device: list[Happening]) -> None:
    """The loop by what ran on the device, in order, and by the calls on the host that started it."""
    found.launches = sum(bool(KERNEL_LAUNCH.match(e.name)) for e in host)
    found.graph_launches = sum(bool(GRAPH_LAUNCH.match(e.name)) for e in host)
    found.copies = sum("Memcpy HtoD" in e.name or "Memcpy DtoH" in e.name for e in device)
    launches = {e.link: e for e in host if e.link and ON_THE_HOST.match(e.name)}
    ranges = {name: [e for e in host if e.name == name] for name in (NETWORK, NOISE)}
    by_kind: defaultdict[str, float] = defaultdict(float)
    found.gaps_us = found.update_us = 0.0
    end = device[0].start_us if device else 0.0
    for e in device:
        launch = launches.get(e.link)
        kind = _kind_on_the_device(e, launch, ranges)
        # what was launched before the device had finished waited for the device, not for the host
        gap_us = max(0.0, min(e.start_us, launch.stop_us if launch else e.start_us) - end)
        by_kind[kind] += e.duration_us
        found.gaps_us += gap_us
        found.update_us += (e.duration_us + gap_us) * (kind == "update")
        end = max(end, e.stop_us)
    found.span_us = end - device[0].start_us if device else 0.0
    by_kind["idle"] = found.span_us - covered([(e.start_us, e.stop_us) for e in device])
    found.by_kind_us = dict(by_kind)


def _kind_on_the_device(e: Happening, launch: Happening | None, ranges: dict[str, list[Happening]]) -> str:
    """By where it was launched, as on the host: outside an eager network it is the update's, unless noise."""

    def within(name: str) -> bool:
        return launch is not None and any(r.start_us <= launch.start_us < r.stop_us for r in ranges[name])

    if within(NOISE):
        return "noise"
    eager = ranges[NETWORK] and launch is not None and not GRAPH_LAUNCH.match(launch.name)
    return "update" if eager and not within(NETWORK) else kind_of(e.name)


def _read_the_host(found: Profile, host: list[Happening], loop: Happening) -> None:
    """The loop by the operators that were called, each with its own time."""
    inside = [(e, own, above) for e, own, above in own_times(host) if e is loop or loop.name in above]
    operators = ("aten::", "mkl")
    found.span_us = loop.duration_us
    found.launches = sum(
        e.name.startswith(operators) and not any(name.startswith(operators) for name in above) for e, _, above in inside
    )
    found.by_kind_us = _kinds_on_the_host(inside)
    found.update_us = found.by_kind_us.get("update")


def _kinds_on_the_host(inside: list[tuple[Happening, float, frozenset[str]]]) -> dict[str, float]:
    """Each operator's own time by kind; outside the network it is the update's, unless noise; the rest is Python's."""
    marked = any(e.name == NETWORK for e, _, _ in inside)
    by_kind: defaultdict[str, float] = defaultdict(float)
    for e, own_us, above in inside:
        if NOISE in above or e.name == NOISE:
            kind = "noise"
        elif e.name.startswith(COMPILED_CALL):
            kind = "compiled kernels" if not marked else "update"  # only the update is compiled beside a network
        elif e.name.startswith("ddpm-bench") and e.name != UPDATE:
            kind = "Python"
        elif e.name == UPDATE or (marked and NETWORK not in above):
            kind = "update"
        elif not OPERATOR.match(e.name):
            kind = "Python"
        else:
            kind = kind_of(e.name)
        by_kind[kind] += own_us
    return dict(by_kind)


@contextmanager
def calls() -> Iterator[list[Happening]]:
    """The operators called inside, with shapes and number formats but without times; filled in at the end.

    By PyTorch's execution trace and not its profiler, which serves a process as it was first used: begun on the host
    alone, it may see nothing of a GPU later (pytorch #186036).
    """
    found: list[Happening] = []
    with tempfile.TemporaryDirectory(prefix="ddpm-bench-") as folder:
        path = Path(folder) / "calls.json"
        observer = ExecutionTraceObserver().register_callback(str(path))
        observer.start()
        try:
            yield found
        finally:
            observer.stop()
            observer.unregister_callback()
        found.extend(_read_calls(path.read_text()))


def _read_calls(trace: str) -> Iterator[Happening]:
    """An execution trace writes numbers that are not finite as JSON does not."""
    for node in strict_json.loads_older(re.sub(r"(?<=[\[, ])-?(nan|inf)(?=[\], ])", "null", trace))["nodes"]:
        inputs = node.get("inputs", {})
        tensors = [(shape, kind.removeprefix("Tensor(").removesuffix(")"))
                   for shape, kind in zip(inputs.get("shapes", ()), inputs.get("types", ()))
                   if kind.startswith("Tensor(")]  # fmt: skip
        yield Happening(node["name"], 0.0, 0.0, shapes=[s for s, _ in tensors], formats=[f for _, f in tensors])


def products_of(host: list[Happening]) -> list[list[Any]]:
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
