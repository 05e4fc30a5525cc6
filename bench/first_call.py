"""A first call in its parts: what compilers spent in it, what a tuner did, and the graphs that were captured."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.profile import calls, products_of

COMPILER_S = 1.0  # in which Inductor finds what the C++ compiler left, and the compiler does nothing
OURS = "kernels."  # whose Triton kernels are counted here; Inductor's are in Dynamo's own account


@dataclass
class Capture:
    """One CUDA graph's capture, ours or PyTorch's: its seconds, and the products that went into it."""

    seconds: float
    products: list[list[Any]]


@dataclass
class Captures:
    """The captures of some calls, and the seconds that looking at them took."""

    made: list[Capture] = field(default_factory=list)
    looking_s: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(capture.seconds for capture in self.made)

    def products(self, steps: int, captured_steps: int = 0) -> list[list[Any]]:
        """What so many replayed steps consist of: a replay shows its kernels, not its operators.

        captured_steps: how many lie in all the graphs together; 0: one in each graph that has any product.
        """
        total: Counter[tuple] = Counter()
        for capture in self.made:
            for *key, count in capture.products:
                total[tuple(key)] += count
        captured_steps = captured_steps or sum(bool(capture.products) for capture in self.made)
        return [[*key, round(count * steps / captured_steps)] for key, count in sorted(total.items())]


@contextmanager
def captures(graph: Any = None) -> Iterator[Captures]:
    """Watch the CUDA graph captures inside. graph: what stands in for `torch.cuda.graph`."""
    graph = graph or torch.cuda.graph
    enter, leave = graph.__enter__, graph.__exit__
    found = Captures()
    started: list[tuple[Any, Any, float]] = []

    def watched_enter(one):
        before = time.perf_counter()
        look = calls()  # begun before the capture: it may do what a capture may not
        called = look.__enter__()
        began = time.perf_counter()
        found.looking_s += began - before
        started.append((look, called, began))
        return enter(one)

    def watched_leave(one, *raised):
        look, called, began = started.pop()
        try:
            return leave(one, *raised)
        finally:
            ended = time.perf_counter()
            look.__exit__(None, None, None)
            found.looking_s += time.perf_counter() - ended
            found.made.append(Capture(ended - began, products_of(called)))

    graph.__enter__, graph.__exit__ = watched_enter, watched_leave
    try:
        yield found
    finally:
        graph.__enter__, graph.__exit__ = enter, leave


def compile_times() -> dict[str, Any]:
    """What Dynamo and Inductor say that they spent in this process so far, and whether caches served it."""
    if "torch._dynamo.utils" not in sys.modules:
        return {"compile_s": 0.0, "autotune_s": 0.0, "compiled_now": False}
    utils = sys.modules["torch._dynamo.utils"]
    spent = {name: sum(seconds) for name, seconds in utils.compilation_time_metrics.items()}
    graphs, hits = utils.counters["stats"]["unique_graphs"], utils.counters["inductor"]["fxgraph_cache_hit"]
    return {
        "compile_s": max(spent.get("_compile.compile_inner", 0.0), spent.get("entire_frame_compile", 0.0)),
        "autotune_s": sum(s for name, s in spent.items() if "autotun" in name.lower() and "benchmark" in name.lower()),
        "compiled_now": graphs > hits or spent.get("compile_file", 0.0) > COMPILER_S,
    }


@dataclass
class TritonWork:
    """Seconds that our Triton kernels took to compile, and to tune beyond that; whether one was in no cache."""

    compile_s: float = 0.0
    autotune_s: float = 0.0
    compiled_now: bool = False

    def added_to(self, times: dict[str, Any]) -> dict[str, Any]:
        """With what `compile_times` tells."""
        return {
            "compile_s": times["compile_s"] + self.compile_s, "autotune_s": times["autotune_s"] + self.autotune_s,
            "compiled_now": times["compiled_now"] or self.compiled_now,
        }  # fmt: skip


@contextmanager
def triton_work() -> Iterator[TritonWork]:
    """Watch Triton compile and tune our kernels inside, where it is installed."""
    found = TritonWork()
    try:
        from triton import knobs
        from triton.runtime.autotuner import Autotuner
    except ImportError:
        yield found
        return
    before, bench = knobs.compilation.listener, Autotuner._bench

    def listen(*, src, times, cache_hit: bool, **more) -> None:
        if getattr(getattr(src, "fn", None), "__module__", "").startswith(OURS):
            found.compile_s += times.total / 1e6
            found.compiled_now |= not cache_hit
        if before is not None:
            before(src=src, times=times, cache_hit=cache_hit, **more)

    def timed(tuner, *arguments, **options):
        began, compiled_s = time.perf_counter(), found.compile_s
        try:
            return bench(tuner, *arguments, **options)
        finally:
            found.autotune_s += time.perf_counter() - began - (found.compile_s - compiled_s)

    knobs.compilation.listener, Autotuner._bench = listen, timed
    try:
        yield found
    finally:
        knobs.compilation.listener, Autotuner._bench = before, bench
