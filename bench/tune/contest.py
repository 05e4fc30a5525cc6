"""The contest: the processes in which rows are built, looked at and raced; what comes of it goes into the journal.

Two fresh processes build side by side, each from another end of the list, so that one compiles what the other will
find in the compiler's cache; then they are timed in turns, one at a time.
"""

import math
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from bench.break_even import CACHES
from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Event, Worker, each
from bench.journal import Journal
from bench.measurement import HALF_GREY_LEVEL
from bench.patience import Patience
from bench.planted import planted
from bench.run import pins
from bench.tune.asked import Asked
from sampler.errors import UsageError

PROCESSES = 2
ENDLESS_S = 1e9  # the rounds bound it
KEPT = ("row", "round", "reference_s", "row_s", "reference_wall_s", "row_wall_s", "reference_first")  # of a pair
Say = Callable[[str], None]


class Contest:
    """Workers that obey one at a time when they are timed. A row that fails is disqualified, whatever it does."""

    def __init__(self, asked: Asked, journal: Journal, say: Say):
        self.asked, self.journal, self.say = asked, journal, say
        self.known = {**CONTENDERS, **{c.name: c for c in planted(asked.plant)}}
        self.processes = 1 if asked.workload.device != "cpu" else min(PROCESSES, os.cpu_count() or 1)
        self.number = 1 + max((e.get("process", -1) for e in journal.events), default=-1)
        # where the first call counts, none may be served by what an earlier search compiled
        self.empty = tempfile.TemporaryDirectory(prefix="ddpm-bench-") if asked.images else None
        self.rng = random.Random(f"{asked.workload.seed} {self.number}")
        self.crew: list[Worker] = []
        self.built: list[str] = []
        self.killed: set[str] = set()  # rows whose process was killed once: memory may have run out over another
        self.patience = Patience(asked.workload, self.known.values())

    def enter(self, rows: list[str]) -> None:
        """Build rows that are not built yet (and the reference with the first), and see that they draw its pictures."""
        new = [row for row in dict.fromkeys([REFERENCE, *rows]) if row not in self.built]
        self.built += new
        if not self.crew:
            self.crew = [self._worker() for _ in range(self.processes)]
        if new:
            self._build(self.crew, new)
            self._compare(new)

    def race(self, rows: list[str], rounds: int) -> None:
        """So many rounds of the rows by each process in turn."""
        for worker in list(self.crew):
            able = [row for row in rows if row not in self.failed]
            for _, event in self._obey(worker, {"do": "pairs", "rows": able, "rounds": rounds, "seconds": ENDLESS_S}):
                self._take(worker, event)
            self.journal.sync()
            self._replace_the_dead()

    @property
    def failed(self) -> set[str]:
        return {e["row"] for e in self.journal.of("disqualified")}

    def end(self) -> None:
        for worker in self.crew:
            worker.end()
        self.crew, self.built = [], []

    def _worker(self) -> Worker:
        task = {"workload": self.asked.workload.json(), "plant": self.asked.plant, "rows": [],
                "seed": self.rng.getrandbits(48)}  # fmt: skip
        self.number += 1
        caches = {name: f"{self.empty.name}/{name}" for name in CACHES} if self.empty else {}
        return Worker(task, self.number - 1, environ=caches, patience=self.patience)

    def _build(self, crew: list[Worker], rows: list[str]) -> None:
        """The reference; then one from the front, one from the back: what the other has compiled is in the cache."""
        for turn in ([row for row in rows if row == REFERENCE], [row for row in rows if row != REFERENCE]):
            turn = [row for row in turn if row not in self.failed]
            if turn:
                orders = [(w, {"do": "build", "rows": turn[:: -1 if i % 2 else 1]}) for i, w in enumerate(crew)]
                for worker, event in each(orders, pins(self.asked.workload)):
                    self._take(worker, event)
        self._replace_the_dead()

    def _compare(self, rows: list[str]) -> None:
        if able := [row for row in rows if row != REFERENCE and row not in self.failed]:
            for worker, event in self._obey(self.crew[0], {"do": "compare", "rows": able}):
                self._take(worker, event)
            self._replace_the_dead()

    def _obey(self, worker: Worker, order: dict[str, Any]) -> Iterator[tuple[Worker, Event]]:
        """On a core drawn anew: which of them a process sits on is worth some percent."""
        core = self.rng.choice(sorted(os.sched_getaffinity(0))) if pins(self.asked.workload) else None
        for event in worker.obey({**order, "core": core}):
            yield worker, event

    def _replace_the_dead(self) -> None:
        """A fresh process for each that died, with every row that has not failed; who killed it has."""
        while dead := next((worker for worker in self.crew if worker.dead), None):  # building may end another
            dead.end()
            fresh = self._worker()
            self.crew[self.crew.index(dead)] = fresh
            self.say("building the rows again in a fresh process")
            self._build([fresh], [row for row in self.built if row not in self.failed])

    def _take(self, worker: Worker, event: Event) -> None:
        kind, row = event["event"], event.get("row")
        if kind == "doing":
            self.say(event["text"])
        elif kind == "pair":
            self.journal.add({"event": kind, "process": worker.number, **{name: event[name] for name in KEPT}})
        elif kind == "first_call":
            self.journal.add({**event, "process": worker.number})
        elif kind == "error":
            self._disqualify(event["row"], event["message"])
        elif kind == "died":
            row = event["doing"]
            if row is None or row == REFERENCE:
                raise UsageError(f"a process that was to race ended: {event['message']}")
            if event["signal"] == signal.SIGKILL and row not in self.killed:
                self.killed.add(row)
                self.say(f"{row} is tried once more in a fresh process: {event['message']}")
                return
            self._disqualify(row, event["message"] if "silent_s" in event else f"its process ended: {event['message']}")
        elif kind == "probe":
            if why := self._astray(event):
                self._disqualify(event["row"], why)
        elif kind == "evidence" and row != REFERENCE:
            against = "; ".join(text for ok, text in event["findings"] if not ok)
            if against:
                self._disqualify(event["row"], f"not shown to have engaged: {against}")

    def _astray(self, probe: Event) -> str:
        """What is wrong with a row that was compared with the reference on the same noise, or ''."""
        largest = probe["largest"]
        if not math.isfinite(largest):
            return "its pictures hold NaN or infinity"
        if self.known[probe["row"]].lossless and largest > HALF_GREY_LEVEL:
            return (f"claims to change no picture, but on the same noise differs from the reference by {largest:.2g} "
                    f"(allowed: half a grey level, {HALF_GREY_LEVEL:.4f})")  # fmt: skip
        return ""

    def _disqualify(self, row: str, why: str) -> None:
        if row == REFERENCE:  # not kept: what was in its way may be gone when the same command goes on
            raise UsageError(f"the reference itself failed: {why}")
        if row not in self.failed:
            self.journal.add({"event": "disqualified", "row": row, "why": why})
            self.say(f"{row} failed: {why}")
