"""The crew: fresh worker processes, built side by side, that then obey one at a time: no two are timed at once.

An order is one JSON line on a worker's standard input; its answer is events, one JSON line each, ending with
`done`. A worker whose standard input closes ends, so none outlives its parent, however that ends.
"""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from bench import environment
from sampler import strict_json as json

Event = dict[str, Any]


class Worker:
    """One fresh process that obeys orders, `bench.worker` or another module; `number` names it in the events."""

    def __init__(self, task: dict[str, Any], number: int, module: str = "bench.worker", environ: dict | None = None):
        self.number = number
        self.dead = False
        self.died_of: str | None = None  # the row that it was at
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(task)],
            env={**environment.for_fresh_processes(), **(environ or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
        )  # fmt: skip
        self._complaints: list[str] = []
        self._overhearing = threading.Thread(target=self._overhear, daemon=True)
        self._overhearing.start()

    def _overhear(self) -> None:
        self._complaints.extend(self.process.stderr or ())

    def obey(self, order: dict[str, Any]) -> Iterator[Event]:
        """Give an order and yield its events; a worker that ends before `done` gives a last event 'died'."""
        doing, row = "", None
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended: the loop below finds no line and says how
        for line in self.process.stdout or ():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of a killed worker may be cut
            if event["event"] == "done":
                return
            if event["event"] == "doing":
                doing, row = event["text"], event.get("row")
            yield event
        yield self._death(doing, row)

    def _death(self, doing: str, row: str | None) -> Event:
        self.dead, self.died_of = True, row
        code = self.process.wait()
        self._overhearing.join(timeout=2)
        tail = [line for line in self._complaints if line.strip()][-1:] or ["no message"]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        where = f" during '{doing}'" if doing else ""
        return {"event": "died", "doing": row, "message": f"{how}{where}; last words: {tail[0].strip()}"}

    def end(self) -> None:
        """End the process if it still runs, and take it off the system's table."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # an order that a dead worker never read


def in_lanes(workers: list[Worker], order: Callable[[Worker], dict[str, Any]], lanes: int,
             pinned: bool) -> Iterator[tuple[Worker, Event]]:  # fmt: skip
    """Give each its order, `lanes` at a time (each on a core of its own if `pinned`); events as they come.

    order(worker): asked for when its turn comes, in a thread of its lane.
    """
    lanes = max(1, min(lanes, len(workers)))
    waiting = iter(workers)  # `next` of a list's iterator is atomic: each worker goes to one lane
    yield from _merged([((worker, order(worker)) for worker in waiting) for _ in range(lanes)], pinned)


def each(orders: list[tuple[Worker, dict[str, Any]]], pinned: bool) -> Iterator[tuple[Worker, Event]]:
    """Give each worker an order of its own, all side by side; events as they come."""
    yield from _merged([iter([order]) for order in orders], pinned)


def dealt(workers: list[Worker], orders: list[dict[str, Any]], pinned: bool) -> Iterator[tuple[Worker, Event]]:
    """Deal the orders out: each worker takes the next when it is done with one; events as they come."""
    waiting = iter(orders)

    def hand(worker: Worker) -> Iterator[tuple[Worker, dict[str, Any]]]:
        for order in waiting:
            yield worker, order
            if worker.dead:  # the order it died over is lost, those that wait go to the others
                return

    yield from _merged([hand(worker) for worker in workers], pinned)


def _merged(lanes: list[Iterator[tuple[Worker, dict[str, Any]]]], pinned: bool) -> Iterator[tuple[Worker, Event]]:
    """Give the orders of all lanes, side by side, each lane on a core of its own if `pinned`."""
    events: queue.Queue = queue.Queue()
    cores = sorted(os.sched_getaffinity(0)) if pinned else []

    def follow(lane: Iterator[tuple[Worker, dict[str, Any]]], core: int | None) -> None:
        try:
            for worker, order in lane:
                for event in worker.obey({**order, "core": core}):
                    events.put((worker, event))
        finally:
            events.put(None)

    for i, lane in enumerate(lanes):
        core = cores[i % len(cores)] if cores else None
        threading.Thread(target=follow, args=(lane, core), daemon=True).start()
    left = len(lanes)
    while left:
        event = events.get()
        if event is None:
            left -= 1
        else:
            yield event
