"""The crew: fresh worker processes, built side by side, that then obey one at a time: no two are timed at once.

An order is one JSON line on a worker's standard input; its answer is events, one JSON line each, ending with
`done`. Each event is due within the seconds that `Patience` gives it; a worker that misses one is ended.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import environment, memory
from bench.patience import Patience
from bench.process import Gone, Process, wait_for
from bench.workload import from_json
from sampler import strict_json as json

Event = dict[str, Any]
GLANCE_S = 1.0  # between two looks at what is overdue


class Worker(Process):
    """One fresh process that obeys orders, `bench.worker` or another module; `number` names it in the events."""

    def __init__(self, task: dict[str, Any], number: int, module: str = "bench.worker", environ: dict | None = None,
                 patience: Patience | None = None, clock: Callable[[], float] = time.monotonic):  # fmt: skip
        super().__init__(
            [sys.executable, "-P", "-m", "bench.child", module, json.dumps(task)],
            {**environment.for_fresh_processes(), **(environ or {})},
        )
        self.number = number
        self.dead = self.busy = False
        self.died_of: str | None = None  # the row that it was at
        self.patience = Patience(from_json(task["workload"])) if patience is None else patience
        self._clock = clock
        self._doing: Event | None = None
        self._has_answered = False

    def obey(self, order: dict[str, Any]) -> Iterator[Event]:
        """Give an order and yield its events; a worker that ends before `done`, or is ended, has a last event 'died'"""
        self.begin(order)
        while self.busy:
            if (event := self.hear(GLANCE_S)) is not None:
                yield event

    def begin(self, order: dict[str, Any]) -> None:
        """Give an order, to be heard of."""
        self.busy = True
        self._had = memory.free_bytes()
        # until it says what it does; and before it has spoken at all, it may still be importing
        self._doing = {"event": "doing", "text": order.get("do", "an inspection"), "row": None,
                       "phase": "order" if self._has_answered else None}  # fmt: skip
        self._silent_s, self._glanced = 0.0, self._clock()
        self.write(order)

    def hear(self, within_s: float) -> Event | None:
        """The next event of the order, or None if none comes within these seconds; with the last, it is busy no more.

        Of the time between two glances a little counts at most: while this process was stopped, so may the worker.
        """
        try:
            event = self.line(within_s)
        except Gone as gone:
            return self._died(self._how(gone), gone.signal)
        now = self._clock()
        self._silent_s += min(now - self._glanced, 2 * GLANCE_S)
        self._glanced = now
        if event is None:
            return self._overdue() if self._silent_s > self.patience.seconds(self._doing) else None
        self._silent_s, self._has_answered = 0.0, True
        self.patience.heard(event)
        if event["event"] == "done":
            self.busy = False
            return None
        if event["event"] == "doing":
            self._doing = event
        return event

    def _how(self, gone: Gone) -> str:
        text = self._doing["text"] if self._doing else ""
        reason = ""
        if gone.signal == signal.SIGKILL:
            reason = f", as the system does when memory runs out (there was {memory.human(self._had)})"
        return f"{gone}{reason} during '{text}'; last words: {gone.words or 'no message'}"

    def _overdue(self) -> Event:
        message = self.patience.sentence(self._doing, self.is_stopped)
        self.end()
        return self._died(message, 0, silent_s=self._silent_s)

    def _died(self, message: str, by_signal: int, **more: Any) -> Event:
        self.dead, self.busy = True, False
        self.died_of = (self._doing or {}).get("row")
        return {"event": "died", "doing": self.died_of, "message": message, "signal": by_signal, **more}


def in_lanes(workers: Sequence[Worker], order: Callable[[Worker], dict[str, Any]], lanes: int,
             pinned: bool) -> Iterator[tuple[Worker, Event]]:  # fmt: skip
    """Give each its order, `lanes` at a time (each on a core of its own if `pinned`); events as they come.

    order(worker): asked for when its turn comes.
    """
    waiting = iter(workers)
    yield from merged([((worker, order(worker)) for worker in waiting) for _ in range(min(lanes, len(workers)))],
                      pinned)  # fmt: skip


def each(orders: list[tuple[Worker, dict[str, Any]]], pinned: bool) -> Iterator[tuple[Worker, Event]]:
    """Give each worker an order of its own, all side by side; events as they come."""
    yield from merged([iter([order]) for order in orders], pinned)


def merged(lanes: list[Iterator[tuple[Worker, dict[str, Any]]]], pinned: bool) -> Iterator[tuple[Worker, Event]]:
    """Give the orders of all lanes, side by side, each lane on a core of its own if `pinned`; events as they come.

    A lane is asked for its next order when the one before has ended, of which 'done' tells, or 'died'.
    """
    cores = sorted(os.sched_getaffinity(0)) if pinned else []
    at: dict[Worker, int] = {}  # the lane that each busy worker is in

    def go_on(i: int) -> None:
        if (given := next(lanes[i], None)) is not None:
            worker, order = given
            worker.begin({**order, "core": cores[i % len(cores)] if cores else None})
            at[worker] = i

    for i in range(len(lanes)):
        go_on(i)
    while at:
        wait_for(list(at), GLANCE_S)
        for worker in list(at):
            if (event := worker.hear(0.0)) is not None:
                yield worker, event
            if not worker.busy:
                if not worker.dead:
                    yield worker, {"event": "done"}
                go_on(at.pop(worker))
