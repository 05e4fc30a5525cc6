"""Inspections from the outside: two nurseries side by side, to whom the rows are dealt, the dearest first."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Event, Worker, dealt
from bench.planted import planted
from bench.workload import Workload
from sampler import cpu


def inspected(task: dict[str, Any], rows: Sequence[str], looks: Sequence[str], workload: Workload, pinned: bool,
              alone: Sequence[str] = ()) -> Iterator[Event]:  # fmt: skip
    """Have each row inspected in a fresh process of its own, with these methods of `Inspection`; yields the events.

    alone: methods called at the end, once, for the reference, while nothing else runs.
    """
    on_gpu = torch.device(workload.device).type == "cuda"
    lanes = 1 if on_gpu else min(2, cpu.usable(), len(rows))  # one at a time on a device: they share its memory
    known = {**CONTENDERS, **{c.name: c for c in planted(task.get("plant"))}}
    dearest_first = sorted(rows, key=lambda name: known[name].compiles, reverse=True)
    task = {**task, "lanes": lanes, "compiles": known[dearest_first[0]].compiles > 0}
    orders = [{"row": name, "looks": list(looks)} for name in dearest_first]
    crew = [Worker(task, -1, "bench.nursery") for _ in range(lanes)]
    try:
        for _, event in dealt(crew, orders, pinned):
            yield event
        last = [{"row": REFERENCE, "looks": list(alone)}] if alone else []
        for _, event in dealt(crew[:1], last, pinned):
            yield event
    finally:
        for worker in crew:
            worker.end()
