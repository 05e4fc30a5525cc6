"""The race: who is in, who is out and why, from paired slices; nobody is dropped on noise.

In a round every row is timed once, in a random order. Two rows that are the same can change places in it, so that the
logarithm of their times' ratio is symmetric about zero, and the e-process of `bench.sequential_test` holds for it as
for any pair: the chance that the fastest row is ever dropped is at most α, whenever one looks and however often.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from bench.contenders import REFERENCE
from bench.crew import Event
from bench.sequential_test import FAIL, MISSING, PASS, Rule, SequentialTest, slowdown_interval
from bench.students_t import Interval, midmean

TIE = 0.01  # rows nearer than this need not be told apart
FIRST_CALL_DOUBT = 0.25  # of a first call's seconds: it was seen once or twice, beside another compiler
FALSE_DROP = 0.01  # α: chance that the fastest is dropped, all its rivals together
Times = dict[tuple[int, int], tuple[float, float]]  # (process, round) -> seconds a step, by both clocks


@dataclass(frozen=True)
class Standing:
    """What the events of a race say so far. batches: how many are wanted, None: no end. rivals: rows that may race."""

    events: tuple[Event, ...]
    steps: int
    batches: float | None = None
    rivals: int = 20

    @cached_property
    def times(self) -> dict[str, Times]:
        """Of each row; the reference's lie beside each row's own (see `pair`)."""
        return self._slices("row")

    @cached_property
    def beside(self) -> dict[str, Times]:
        """The reference's slices of each row's pairs."""
        return self._slices("reference")

    def _slices(self, side: str) -> dict[str, Times]:
        """One side of each row's pairs."""
        found: dict[str, Times] = {}
        for e in self._of("pair"):
            found.setdefault(e["row"], {})[e["process"], e["round"]] = (e[f"{side}_s"], e[f"{side}_wall_s"])
        return found

    @cached_property
    def ready_s(self) -> dict[str, float]:
        """Seconds of each row's first call: the longest, for caches of compilers serve the later ones."""
        found: dict[str, float] = {}
        for e in self._of("first_call"):
            found[e["row"]] = max(e["seconds"], found.get(e["row"], 0.0))
        return found

    @cached_property
    def compiled(self) -> set[str]:
        """Rows for which a compiler worked at a first call: not all came from its cache."""
        return {e["row"] for e in self._of("first_call") if e.get("compiled_now")}

    @cached_property
    def disqualified(self) -> dict[str, str]:
        """Rows that failed, with the reason: whom they beat is in again."""
        return {e["row"]: e["why"] for e in self._of("disqualified")}

    @cached_property
    def beaten(self) -> dict[str, Event]:
        """Rows that were dropped as slower than one that still stands."""
        return {e["row"]: e for e in self._of("dropped")
                if e["row"] not in self.disqualified and e["by"] not in self.disqualified}  # fmt: skip

    @cached_property
    def rows(self) -> list[str]:
        """Every row that was built and did not fail, the reference among them, in the order of building."""
        return [row for row in self.ready_s if row not in self.disqualified]

    @cached_property
    def alive(self) -> list[str]:
        return [row for row in self.rows if row not in self.beaten]

    @cached_property
    def best(self) -> str:
        """The row of least cost among those that are in."""
        timed = [row for row in self.alive if row == REFERENCE or row in self.times]
        return min(timed, key=self.cost_s, default=REFERENCE)

    @cached_property
    def reference_step_s(self) -> float:
        found = [s for times in self.beside.values() for s, _ in times.values()]
        return median(found) if found else math.nan

    def log_ratio(self, row: str) -> float:
        """ln(row / reference), a step: the midmean over its pairs; 0 for the reference itself."""
        pairs = self.pair(row, REFERENCE)
        return midmean([d for d, _ in pairs]) if pairs else 0.0

    def step_s(self, row: str) -> float:
        return self.reference_step_s * math.exp(self.log_ratio(row))

    def cost_s(self, row: str, share: float = 1.0) -> float:
        """Seconds a batch, with its part of the first call where an end of them is known; share: of the steps."""
        start_s = self.ready_s[row] / self.batches if self.batches else 0.0
        return self.step_s(row) * self.steps * share + start_s

    def pair(self, row: str, other: str) -> list[tuple[float, float]]:
        """ln(row / other) by both clocks, for every round that both were in."""
        mine = self.times.get(row, {}) if row != REFERENCE else self.beside.get(other, {})
        theirs = self.times.get(other, {}) if other != REFERENCE else self.beside.get(row, {})
        return [tuple(math.log(a / b) for a, b in zip(mine[key], theirs[key], strict=True))  # type: ignore[misc]
                for key in mine if key in theirs]  # fmt: skip

    def tolerance(self, row: str, other: str) -> float:
        """How much slower a step of `row` may be before it costs more for sure: what it may save in its first call."""
        if not self.batches:
            return 0.0
        mine, theirs = self.ready_s[row], self.ready_s[other]
        doubt = FIRST_CALL_DOUBT * max(mine, theirs)
        return (theirs - mine + doubt) / (self.batches * self.steps * self.step_s(other))

    def verdict(self, row: str, other: str) -> str:
        """FAIL: `row` costs more than `other`; PASS: at most TIE more; else not known yet."""
        pairs = self.pair(row, other)
        if not pairs:
            return MISSING
        tolerated = self.tolerance(row, other)
        if tolerated <= -0.99:
            return FAIL  # its first call alone costs more than all of the other
        limit = tolerated + TIE * (1 + tolerated)
        test = SequentialTest(Rule(tolerated, limit, limit, false_alarm=FALSE_DROP, rows=max(1, self.rivals)))
        for d, d_wall in pairs:
            test.add(d, d_wall)
            if test.verdict == FAIL:
                return FAIL
        return test.verdict

    @cached_property
    def undecided(self) -> list[str]:
        """Rows in the race that are neither shown to cost more than the best nor shown to cost as little."""
        return [row for row in self.alive
                if row not in (self.best, REFERENCE) and self.verdict(row, self.best) != PASS]  # fmt: skip

    def losers(self) -> list[Event]:
        """Whom to drop now, each with by whom and how much slower a step it is."""
        return [{"event": "dropped", "row": row, "by": self.best, "slower": list(self.slower(row, self.best))}
                for row in self.alive if row != self.best and self.verdict(row, self.best) == FAIL]  # fmt: skip

    def slower(self, row: str, other: str) -> tuple[float, float, float]:
        """By how much a step of `row` is slower: value, low and high at 95 %, valid whenever it is looked at."""
        return slowdown_interval(d for d, _ in self.pair(row, other))

    def speedup(self, row: str) -> Interval:
        """Of a step over the reference; its high end is infinite as long as few pairs bound it."""
        value, low, high = (1 / (1 + s) if s > -1 else math.inf for s in self.slower(row, REFERENCE))
        return Interval(value, high, low)

    def _of(self, *kinds: str) -> Iterable[Event]:
        return (e for e in self.events if e["event"] in kinds)
