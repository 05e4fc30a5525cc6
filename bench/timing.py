"""A group of fresh processes that time rows, driven by a `Schedule`; who dies has a fresh one in its place.

A row that hangs, or ends its process, is red and is built in no other. One that was killed by signal 9 may be innocent,
for that is how memory runs out: it is tried once more in a process of its own, and is red if that is killed too.
"""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import torch

from bench.contenders import REFERENCE
from bench.crew import Event, Worker, in_lanes
from bench.measurement import Measurement
from bench.patience import Patience
from bench.schedule import FIRST_TURNS, Order, Schedule, building_order
from bench.workload import Workload
from sampler import cpu

LEAST_S = 10.0  # of timing, for a run that is gone on with
TRIAL_S = 60.0  # in which a row that is tried alone may take a turn's pairs
MOST_UNEXPLAINED = 3  # processes of a group that end over no row in particular, before no more are started
Take = Callable[[Event, int, str], None]  # an event, the process that it came from, and what to call that


def time_rows(job: Measurement, able: list[str], task: dict[str, Any], take: Take, say: Callable[[str], None],
              patience: Patience, start: Callable[..., Worker] = Worker) -> None:  # fmt: skip
    """Time rows that were inspected, in fresh processes that take turns; on a device one process after another."""
    workload = job.workload
    resumed = job.of("resumed")
    first, timed_s = (resumed[-1]["process"], resumed[-1]["timed_s"]) if resumed else (0, 0.0)
    if resumed and not left_to_do(job, able):
        return
    budget_s = max(LEAST_S, workload.budget_s - timed_s) if resumed else workload.budget_s
    rng = random.Random(f"{workload.seed} {job.started}" + (f" {first}" if first else ""))
    together = 1 if torch.device(workload.device).type == "cuda" else workload.processes
    numbers = range(first, first + workload.processes)
    further = itertools.count(numbers.stop)  # of the processes that are started in the place of others
    for group in (numbers[i : i + together] for i in range(0, len(numbers), together)):
        rows = [n for n in able if n != REFERENCE and not job.row(n).reason]
        share_s = budget_s * len(group) / len(numbers)
        is_first, is_last = group[0] == numbers[0], group[-1] == numbers[-1]
        schedule = Schedule(
            workload, share_s, len(group), rng, is_first and not job.of("empty_cache"), is_last,
            wholes=not job.of("pictures"), first_turns=0 if resumed else FIRST_TURNS,
        )  # fmt: skip
        made = Group(job, rows, task, schedule, take, say, patience, start, further)
        try:
            made.build(group)
            made.time()
        finally:
            made.end()


def left_to_do(job: Measurement, able: list[str]) -> bool:
    """Whether a run that is gone on with has anything left to be timed or judged."""
    over = job.of("judged") and (job.of("pictures") or not job.workload.whole_share)
    return not over or any(needs_longer(job, n) for n in able if n != REFERENCE and not job.row(n).reason)


def needs_longer(job: Measurement, row: str) -> bool:
    """Whether a row's interval is too wide still, and it has not had all the pairs that it may have."""
    job_, found = job.workload, job.row(row)
    return found.needs_longer and len(found.pairs) < job_.processes * job_.max_turns * job_.rounds


def pins(workload: Workload) -> bool:
    """Whether a process is pinned to one core: on the CPU with one thread, where the system can."""
    return hasattr(os, "sched_getaffinity") and workload.threads == 1 and workload.device == "cpu"


class Group:
    """Processes that live and obey at the same time; what its schedule sees of them (see `View`)."""

    def __init__(self, job: Measurement, rows: list[str], task: dict[str, Any], schedule: Schedule, take: Take,
                 say: Callable[[str], None], patience: Patience, start: Callable[..., Worker],
                 further: Iterator[int]):  # fmt: skip
        self.job, self.rows, self.task, self.schedule = job, rows, task, schedule
        self.take, self.say, self.patience, self.start, self.further = take, say, patience, start, further
        self.workers: dict[int, Worker] = {}
        self.built: dict[int, list[str]] = {}  # the rows that each process was started for, in the order of building
        self.heirs: dict[int, int] = {}
        self.waiting: set[str] = set()  # rows whose process was killed, that are to be tried alone
        self.tried: set[str] = set()  # and those that were
        self.unexplained = 0

    # what the schedule sees

    def alive(self) -> list[int]:
        return [number for number, worker in self.workers.items() if not worker.dead]

    def sound(self, number: int | None = None) -> list[str]:
        among = self.rows if number is None else self.built[number]
        return [n for n in among if n not in self.waiting and not self.job.row(n).reason]

    def needs_longer(self, row: str) -> bool:
        return needs_longer(self.job, row)

    def heir(self, number: int) -> int | None:
        return self.heirs.get(number)

    def step_s(self) -> dict[str, float]:
        pairs = self.job.of("pair")
        found = {name: [p["row_wall_s"] for p in self.job.of("pair", name)] for name in self.rows}
        found[REFERENCE] = [p["reference_wall_s"] for p in pairs]
        return {name: fmean(seconds) for name, seconds in found.items() if seconds}

    # what it does

    def build(self, numbers: Sequence[int]) -> None:
        """Start the processes and let them build their rows, side by side."""
        self.say(f"building the rows in {len(numbers)} fresh process{'es' * (len(numbers) > 1)}")
        for number in numbers:
            self._begin(number, building_order(self.rows, number, self.job.workload.seed))
        self._build([self.workers[number] for number in numbers])
        self.job.keep({"event": "budget", **self.schedule.built()})
        self._mend()

    def time(self) -> None:
        """Whatever the schedule orders."""
        for number, order in self.schedule.orders(self):
            if order["do"] == "axis":  # what was begun of it is begun anew
                self.job.keep({"event": "again", "kinds": ["axis", "axis_error"]})
            self._obey(self.workers[number], order)
            if order["do"] == "judge":
                self.job.keep({"event": "judged"})
            self._mend()

    def end(self) -> None:
        for worker in self.workers.values():
            worker.end()

    def _begin(self, number: int, rows: list[str]) -> None:
        task = {**self.task, "rows": [REFERENCE, *rows], "seed": self.schedule.rng.getrandbits(48)}
        self.workers[number], self.built[number] = self.start(task, number, patience=self.patience), rows

    def _build(self, workers: Sequence[Worker]) -> None:
        def order(worker: Worker) -> Order:  # without what ended a process before this one
            return {"do": "build", "rows": [REFERENCE, *self._buildable(worker.number)]}

        for worker, event in in_lanes(workers, order, cpu.usable(), pins(self.job.workload)):
            if event["event"] != "first_call":  # those of the preparation count: these come from its caches
                self._heard(worker, event, f"building, process {worker.number + 1}")

    def _buildable(self, number: int) -> list[str]:
        """What a process builds: all that is sound, or the one row that it is to try again."""
        mine = self.built[number]
        return [n for n in mine if not self.job.row(n).reason and (n not in self.waiting or mine == [n])]

    def _obey(self, worker: Worker, order: Order) -> None:
        core = self.schedule.rng.choice(sorted(os.sched_getaffinity(0))) if pins(self.job.workload) else None
        for event in worker.obey({**order, "core": core}):
            left = f"{self.schedule.left_s:.0f} s left at most"
            self._heard(worker, event, f"process {worker.number + 1} of {max(self.workers) + 1}, {left}")
        if self.job.journal is not None:
            self.job.journal.sync()

    def _heard(self, worker: Worker, event: Event, label: str) -> None:
        if event["event"] == "died":
            self.schedule.lose(event.get("silent_s", 0.0))
            row = event["doing"]
            if row is None or row == REFERENCE:
                self.unexplained += 1
            elif event["signal"] == signal.SIGKILL and row not in self.tried:
                self.waiting.add(row)
                event = {**event, "again": True}
        self.take(event, worker.number, label)

    def _mend(self) -> None:
        """A fresh process for each that died, and one for each row that is to be tried alone."""
        began = time.monotonic()
        while fresh := list(self._fresh()):
            self._build(fresh)
            for worker in fresh:
                if (rows := self.built[worker.number]) and rows[0] in self.waiting:
                    self._try(worker, rows[0])
        self.schedule.lose(time.monotonic() - began)

    def _fresh(self) -> Iterator[Worker]:
        """Started anew: in the place of one that died, with what it may build; and for one row at a time, alone."""
        for number, worker in list(self.workers.items()):
            if worker.dead and number not in self.heirs and self.unexplained <= MOST_UNEXPLAINED:
                worker.end()
                rows = self.sound(number)
                if not rows:
                    continue
                self.say("building the rows again in a fresh process")
                self.heirs[number] = next(self.further)
                self._begin(self.heirs[number], rows)
                yield self.workers[self.heirs[number]]
                return
        for row in sorted(self.waiting - self.tried):
            self.tried.add(row)
            self.say(f"trying {row} once more, alone in a fresh process")
            number = next(self.further)
            self._begin(number, [row])
            yield self.workers[number]
            return

    def _try(self, worker: Worker, row: str) -> None:
        """Time a row alone: it may go on everywhere if that ends well."""
        if not worker.dead:
            self.waiting.discard(row)
            self._obey(worker, {"do": "pairs", "rows": [row], "rounds": self.job.workload.rounds, "seconds": TRIAL_S})
        self.waiting.discard(row)
