"""What a row's calls did, counted while they are made: network calls, graph replays, compilations.

While slices are timed, compilations are counted around every one of them, and calls from Python in one of a few: a
hook on the whole network is 2 µs where it is called in a row; between two steps that have filled the caches it cost
some 40 (0.8 % of a step of two calls, by slices with and without it).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

CALLS = "network calls of "  # followed by the batch: the keys under which calls made from Python are counted


class Tally:
    """Counts of one process, by row.

    network: its calls from Python are counted by batch size, and so are those of every copy made of it later.
    graph: the class whose `replay` is counted where the network is on a GPU (PyTorch's own graphs use it too).
    one_in: of a row that calls the network from Python, the first loop is counted and then each n-th; of others, all.
    """

    def __init__(self, network: nn.Module, graph: Any = None, one_in: int = 1):
        self.counts: dict[str, Counter[str]] = {}
        self._one_in = one_in
        self._loops: Counter[str] = Counter()
        self._current: Counter[str] = Counter()
        # the network, and the copies of it that have been called: a copy takes the hook along
        self._networks = WeakSet([network] if isinstance(network, nn.Module) else [])
        self._graph: Any = graph
        self._replay = graph.replay if graph is not None else None

        # a closure: copies of the network share it, and a compiled step contains nothing of it
        def count(module: nn.Module, inputs: tuple) -> None:
            if not torch.compiler.is_compiling():
                self._networks.add(module)
                self._current[f"{CALLS}{len(inputs[0])}"] += 1

        self._count = count
        self._key = next((known.register_forward_pre_hook(count).id for known in self._networks), 0)
        self.listen()

    def listen(self) -> None:
        """Count network calls and replays from now on (as from the beginning)."""
        if self._graph is not None:
            self._graph.replay = self._counted
        for network in self._networks:
            network._forward_pre_hooks[self._key] = self._count  # what was compiled finds it where it was

    def rest(self) -> None:
        """Count nothing until told to listen again: what is called then is as if it had never been counted."""
        if self._graph is not None:
            self._graph.replay = self._replay
        for network in self._networks:
            network._forward_pre_hooks.pop(self._key, None)

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
        mine = self.counts.setdefault(row, Counter())
        # a compiled step was made with the hook, never comes to it, and must not find it gone
        from_python = any(name.startswith(CALLS) for name in mine)
        counted = not from_python or self._loops[row] % self._one_in == 0
        self._loops[row] += 1
        self._current = mine if counted else Counter()
        (self.listen if counted else self.rest)()
        before = compilations()
        try:
            yield
        finally:
            self._current = Counter()  # what nobody asked about
            mine["steps"] += steps * counted
            mine["guided"] += guided * counted
            for name, count in compilations().items():
                mine[name] += count - before[name]

    def clear(self) -> None:
        """Forget what was counted until now: first calls compile and capture, later ones must not."""
        self.counts.clear()
        self._loops.clear()

    def forget(self, row: str) -> None:
        """The same of one row: its next loop is counted."""
        self.counts.pop(row, None)
        self._loops.pop(row, None)


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
