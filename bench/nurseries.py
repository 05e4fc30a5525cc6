"""Inspections from the outside: two nurseries side by side, to whom the rows are dealt, the dearest first.

A row that hangs or dies takes nobody with it: its nursery is ended with it, and a fresh one takes the next. One that
was killed may have been the victim of others: it is tried once more, while nothing else runs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Event, Worker, merged
from bench.patience import Patience
from bench.planted import planted
from bench.workload import Workload
from sampler import cpu

Order = dict[str, Any]


def inspected(task: dict[str, Any], rows: Sequence[str], looks: Sequence[str], workload: Workload, pinned: bool,
              alone: Sequence[str] = (), patience: Patience | None = None,
              start: Callable[..., Worker] = Worker) -> Iterator[Event]:  # fmt: skip
    """Have each row inspected in a fresh process of its own, with these methods of `Inspection`; yields the events.

    alone: methods called at the end, once, for the reference, while nothing else runs. An event 'again' says that a row
    was killed and that what was heard of it so far does not count; 'inspected', that all is heard.
    """
    on_gpu = torch.device(workload.device).type == "cuda"
    # one at a time on a device: they share its memory
    lanes = 1 if on_gpu else max(1, min(2, cpu.usable(), len(rows)))
    known = {**CONTENDERS, **{c.name: c for c in planted(task.get("plant"))}}
    dearest_first = sorted(rows, key=lambda name: known[name].compiles, reverse=True)
    task = {**task, "lanes": lanes, "compiles": any(known[name].compiles for name in rows)}
    patience = patience or Patience(workload, known.values())
    crew = [start(task, -1, "bench.nursery", patience=patience) for _ in range(lanes)]
    started = list(crew)

    def heard(orders: list[Order], lanes: int, killed: list[Order] | None = None) -> Iterator[Event]:
        """killed: where orders go whose process was killed by signal 9, instead of failing."""
        waiting, at = iter(orders), dict[Worker, Order]()

        def hand(lane: int) -> Iterator[tuple[Worker, Order]]:
            for order in waiting:
                if crew[lane].dead:
                    crew[lane] = start(task, -1, "bench.nursery", patience=patience)
                    started.append(crew[lane])
                at[crew[lane]] = order
                yield crew[lane], order

        for worker, event in merged([hand(lane) for lane in range(lanes)], pinned):
            order = at[worker]
            if event["event"] == "died":  # the nursery itself, or it was ended with a row that hung
                said = event["message"] if "silent_s" in event else f"its process ended: {event['message']}"
                event = {"event": "error", "row": order["row"], "message": said, "killed": event["signal"] == 9}
            if event["event"] == "error":
                was_killed = event.pop("killed", False)
                if was_killed and killed is not None:
                    killed.append(order)
                    event = {**event, "event": "again"}
            elif event["event"] == "done":
                if order["looks"] == list(looks) and order not in (killed or []):
                    yield {"event": "inspected", "row": order["row"]}
                continue
            yield event

    killed: list[Order] = []
    try:
        yield from heard([{"row": name, "looks": list(looks)} for name in dearest_first], lanes, killed)
        for worker in crew[1:]:
            worker.end()
        yield from heard(killed, 1)
        yield from heard([{"row": REFERENCE, "looks": list(alone)}] if alone else [], 1)
    finally:
        for worker in started:
            worker.end()
