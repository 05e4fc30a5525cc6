"""The finals: the cheapest rows that keep the budgets, inspected and timed against each other in fresh processes.

From cheap to dear: what is known of the pictures' quality, then an inspection in a process of its own (proofs, memory,
layer 1, a whole run), then pictures drawn, then pairs in fresh processes. Who fails makes room for the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.inspection import LOOKS
from bench.journal import Journal
from bench.measurement import Measurement
from bench.memory import human
from bench.planted import planted
from bench.run import inspect_rows, introduce, started, time_rows
from bench.tune.asked import Asked
from bench.tune.quality import Judge, Judged
from bench.tune.race import Standing
from bench.tune.record import most_bytes, raced
from bench.tune.space import BY_NAME, SEAMS, contender, name_of, with_value
from sampler.errors import UsageError

FINALISTS = 2  # beside the reference
PROCESSES = 4  # fresh ones in which they are timed
TIMED_SHARE, LEAST_S = 0.6, 15.0  # of the seconds left for that, what is not for building; and as many at least


@dataclass(frozen=True)
class Entry:
    """A row that could win: a raced one on a path, with what it is foreseen to cost, in seconds a batch."""

    name: str
    raced: str
    cost_s: float


def ranking(standing: Standing, paths: tuple[str, ...]) -> list[Entry]:
    """Every row that was raced and did not fail, on every path that is allowed, the cheapest first."""
    found = []
    for row in standing.rows:
        if row == REFERENCE or row not in standing.times:
            continue
        if row not in BY_NAME:
            found.append(Entry(row, row, standing.cost_s(row)))
            continue
        for path in paths:
            choice = with_value(BY_NAME[row], "path", path)
            share = SEAMS["path"][path].share
            if contender(choice) is not None:
                found.append(Entry(name_of(choice), row, standing.cost_s(row, share)))
    if len(paths) > 1:  # the reference's own step on a shorter path is a row too
        shorter = [(path, SEAMS["path"][path].share) for path in paths if path]
        found += [Entry(path, REFERENCE, standing.cost_s(REFERENCE, share)) for path, share in shorter]
    return sorted(found, key=lambda entry: (entry.cost_s, entry.name))


class Finals:
    """Who is looked at, and what was found. `job` holds what was measured, as any measurement does."""

    def __init__(self, asked: Asked, journal: Journal, judge: Judge, say: Callable[[str], None], command: str):
        self.asked, self.journal, self.judge, self.say = asked, journal, judge, say
        self.known: dict[str, Contender] = {**CONTENDERS, **{c.name: c for c in planted(asked.plant)}}
        # a whole run is part of the inspection
        workload = replace(asked.workload, processes=PROCESSES, building_s=None, whole_share=0.0, batch_axis=(),
                           quality_s=0.0)  # fmt: skip
        self.job: Measurement = started(workload, command)
        self.judged: dict[str, Judged] = {}
        kept = [e for e in journal.of("rejected") if not e.get("for_time")]  # there may be more time now
        self.failed: dict[str, str] = {e["row"]: e["why"] for e in kept}
        # of them, those that can win on no path: they did not do what they claim, raised, or take too much memory
        self.faulty: list[str] = [e["row"] for e in kept if e.get("faulty")]

    @property
    def task(self) -> dict[str, Any]:
        return {"workload": self.job.workload.json(), "plant": self.asked.plant}

    def choose(self, ranked: list[Entry], left_s: Callable[[], float]) -> list[str]:
        """The first of the ranking that keep the budgets, inspected; fewer where there are no more."""
        waiting: Iterator[Entry] = iter(ranked)
        finalists: list[str] = []
        while len(finalists) < FINALISTS and (not self.job.rows or left_s() > 0):
            batch = []
            for entry in waiting:
                if self._may_pass(entry.name, left_s()):
                    batch.append(entry.name)
                if len(batch) == FINALISTS - len(finalists):
                    break
            if not batch:
                break
            self._inspect([name for name in (REFERENCE, *batch) if name not in self.job.rows])
            if reason := self.job.row(REFERENCE).reason:
                raise UsageError(f"the reference itself failed: {reason}")
            if over := self._over(REFERENCE):
                raise UsageError(f"the memory budget cannot be met at a batch of {self.asked.workload.batch}: the "
                                 f"reference {over}; ask for a smaller --batch")  # fmt: skip
            finalists += [name for name in batch if self._passes(name, left_s)]
        return finalists

    def time(self, finalists: list[str], seconds: float) -> None:
        """Pairs with the reference in fresh processes."""
        self.job.workload = replace(self.job.workload, budget_s=max(LEAST_S, seconds * TIMED_SHARE))
        time_rows(self.job, [REFERENCE, *finalists], self.task, self.say)
        for name in finalists:
            if reason := self.job.row(name).reason:
                self._reject(name, reason)

    def _may_pass(self, name: str, left_s: float) -> bool:
        """Whether what is known already, and the time to draw what is not, leaves it in."""
        if name in self.failed or raced(name) in self.faulty:
            return False
        found = self.judge.foreseen(self.known[name], left_s)
        if found is not None:
            self.judged[name] = found
            return self._keeps_quality(name)
        return True

    def _keeps_quality(self, name: str) -> bool:
        if not self.judged[name].passes:
            undrawn = self.judge.known(self.known[name]) is None
            self._reject(name, f"quality {self.asked.quality}: {self.judged[name].text}", for_time=undrawn)
        return self.judged[name].passes

    def _over(self, name: str) -> str:
        """What an inspected row takes more than the memory budget, in words, or ''."""
        needed, within = most_bytes(self.job.row(name)), self.asked.memory_bytes
        if within is None or needed is None or needed <= within:
            return ""
        return f"takes {human(needed)}, {human(needed - within)} more than the budget of {human(within)}"

    def _passes(self, name: str, left_s: Callable[[], float]) -> bool:
        if reason := self.job.row(name).reason:
            self._reject(name, reason, faulty=True)
            return False
        if over := self._over(name):
            for one in dict.fromkeys([name, raced(name)]):  # the path makes no difference to it
                self._reject(one, f"memory: {over}", faulty=True)
            return False
        if name not in self.judged:
            self.say(f"drawing pictures of {name}")
            found = self.judge.foreseen(self.known[name], left_s())  # an inspection took some of it
            self.judged[name] = found or self.judge.draw(self.known[name], self.say)
        return self._keeps_quality(name)

    def _inspect(self, names: list[str]) -> None:
        if not names:
            return
        self.job.rows += [name for name in names if name not in self.job.rows]
        for name in names:
            introduce(self.job, self.known[name], self.asked.plant)
        self.say(f"inspecting {', '.join(names)}: memory, proofs, pictures, a whole run")
        alone = ("roof",) if REFERENCE in names else ()
        inspect_rows(self.job, names, self.task, self.say, (*LOOKS, "whole"), alone)

    def _reject(self, name: str, why: str, faulty: bool = False, for_time: bool = False) -> None:
        self.failed[name] = why
        if faulty:
            self.faulty.append(name)
        self.journal.add({"event": "rejected", "row": name, "why": why, "faulty": faulty, "for_time": for_time})
        self.say(f"{name} failed: {why}")
