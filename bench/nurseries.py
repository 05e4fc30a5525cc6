"""Inspections from the outside: two nurseries side by side, to whom the rows are dealt, the dearest first."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Event, Worker, dealt
from bench.workload import Workload


def inspected(task: dict[str, Any], rows: Sequence[str], looks: Sequence[str], workload: Workload, pinned: bool,
              alone: Sequence[str] = ()) -> Iterator[Event]:  # fmt: skip
    """Have each row inspected in a fresh process of its own, with these methods of `Inspection`; yields the events.

    alone: methods called at the end, once, for the reference, while nothing else runs.
    """
    on_gpu = torch.device(workload.device).type == "cuda"
    lanes = 1 if on_gpu else min(2, os.cpu_count() or 1, len(rows))  # one at a time on a device: they share its memory
    task = {**task, "lanes": lanes, "compiles": any(_effort(name) for name in rows)}
    orders = [{"row": name, "looks": list(looks)} for name in sorted(rows, key=_effort, reverse=True)]
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


def _effort(row: str) -> int:
    return CONTENDERS[row].compiles if row in CONTENDERS else 0
