"""What a row's calls did, counted while they are made: network calls, graph replays, compilations.

Cheap enough to stay on while slices are timed: one hook on the whole network, and a few integers read before and
after a slice.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

CALLS = "network calls of "  # followed by the batch: the keys under which calls made from Python are counted


class Tally:
    """Counts of one process, by row.

    network: its calls from Python are counted by batch size, and so are those of every copy made of it later.
    graph: the class whose `replay` is counted where the network is on a GPU (PyTorch's own graphs use it too).
    """

    def __init__(self, network: nn.Module, graph: Any = None):
        self.counts: dict[str, Counter[str]] = {}
        self._current: Counter[str] = Counter()
        self._network = network
        self._hook: RemovableHandle | None = None
        self._graph: Any = graph
        self._replay = graph.replay if graph is not None else None
        self.listen()

    def listen(self) -> None:
        """Count network calls and replays from now on (as from the beginning)."""
        if self._graph is not None:
            self._graph.replay = self._counted
        if self._hook is not None or not isinstance(self._network, nn.Module):
            return

        # a closure: copies of the network share it, and a compiled step contains nothing of it
        def count(module: nn.Module, inputs: tuple) -> None:
            if not torch.compiler.is_compiling():
                self._current[f"{CALLS}{len(inputs[0])}"] += 1

        self._hook = self._network.register_forward_pre_hook(count)

    def rest(self) -> None:
        """Count nothing until told to listen again: what is called then is as if it had never been counted."""
        if self._graph is not None:
            self._graph.replay = self._replay
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @property
    def _counted(self) -> Callable[[Any], None]:
        replay = self._replay
        assert replay is not None

        def counted(one) -> None:
            self._current["replays"] += 1
            replay(one)

        return counted

    @contextmanager
    def of(self, row: str, steps: int, guided: int) -> Iterator[None]:
        """Count for a row what happens inside: so many steps, so many of them guided."""
        self._current = mine = self.counts.setdefault(row, Counter())
        before = compilations()
        try:
            yield
        finally:
            self._current = Counter()  # what nobody asked about
            mine["steps"] += steps
            mine["guided"] += guided
            for name, count in compilations().items():
                mine[name] += count - before[name]

    def clear(self) -> None:
        """Forget what was counted until now: first calls compile and capture, later ones must not."""
        self.counts.clear()


def compilations() -> dict[str, int]:
    """How often Dynamo has compiled a graph, broken one or skipped a CUDA graph in this process so far."""
    if "torch._dynamo.utils" not in sys.modules:
        return dict.fromkeys(("compilations", "graph breaks", "graphs skipped"), 0)
    counters = sys.modules["torch._dynamo.utils"].counters
    return {
        "compilations": counters["stats"]["unique_graphs"],
        "graph breaks": sum(counters["graph_break"].values()),
        "graphs skipped": counters["inductor"]["cudagraph_skips"],
    }
