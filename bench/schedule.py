"""The schedule of a group of processes: which of them times what, for how long, and when it is enough.

It orders and starts nothing: whoever drives it gives each order, lets it be obeyed, and goes on. What it must know of
the rows and the processes it asks a `View`; what it must know of the time, its clock.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from bench.contenders import REFERENCE
from bench.workload import Workload

AXIS_ROWS, AXIS_SLICES = (REFERENCE, "batched-cfg"), 5
LEAST_SHARE = 2 / 3  # of the budget, that building leaves
FIRST_TURNS = 2  # turns in which every row is timed, before only the undecided are
AGAIN_SHARE = 0.5  # of the seconds for whole runs that a process gets at least that must begin with them anew

Order = dict[str, Any]


class View(Protocol):
    """What is so at the moment."""

    def alive(self) -> list[int]:
        """The processes that can be given orders, by number."""

    def sound(self, number: int | None = None) -> list[str]:
        """The rows beside the reference that have not failed; of them, those that this process has built."""

    def needs_longer(self, row: str) -> bool:
        """Whether its interval is still too wide."""

    def heir(self, number: int) -> int | None:
        """The fresh process that took the place of one that is dead; None where nobody did."""

    def step_s(self) -> dict[str, float]:
        """Wall seconds of a step of each row that was timed."""


@dataclass
class Schedule:
    """Every row gets the first turns; then only those whose interval is still too wide.

    One process of the last group also times whole runs, in parts between the turns: a minute in which a neighbour
    disturbs falls on both. Made when building begins; `built` says that it is over.

    given_s: the group's share of the budget, of so many `processes`; is_first, is_last: of the groups.
    """

    workload: Workload
    given_s: float
    processes: int
    rng: Random
    is_first: bool
    is_last: bool
    clock: Callable[[], float] = time.monotonic
    wholes: bool = True  # whether whole runs are to be taken
    first_turns: int = FIRST_TURNS
    whole: int | None = None  # the process that takes whole runs
    _began_s: float = field(init=False)
    _spent_on_whole_s: float = field(init=False, default=0.0)
    _lost_s: float = field(init=False, default=0.0)

    def __post_init__(self):
        self._start_s = self._began_s = self.clock()
        self.budget_s, self.whole_s = self.given_s, 0.0

    def built(self) -> dict[str, float]:
        """Building is over: what it took, and what it leaves for timing."""
        self._began_s = self.clock()
        built_s = self._began_s - self._start_s
        self.budget_s = left_by_building(self.given_s, built_s, self.workload, self.processes)
        self.whole_s = self.budget_s * self.workload.whole_share if self.is_last and self.wholes else 0.0
        return {"seconds": self.budget_s, "short_s": self.given_s - self.budget_s, "building_s": built_s}

    def lose(self, seconds: float) -> None:
        """Seconds that went on waiting for a process that hung, and on putting another in its place: no row's."""
        self._lost_s += seconds

    @property
    def left_s(self) -> float:
        """Seconds until the budget is spent."""
        return max(0.0, self.budget_s - self._gone_s)

    @property
    def _gone_s(self) -> float:
        return self.clock() - self._began_s - self._lost_s

    @property
    def _for_turns_s(self) -> float:
        return self.budget_s - self.whole_s - (self._gone_s - self._spent_on_whole_s)

    def orders(self, view: View) -> Iterator[tuple[int, Order]]:
        """Which process is to do what, one after another: each is asked for when the one before was obeyed."""
        if self.is_first and (alive := view.alive()):
            yield alive[0], {"do": "axis", "rows": self._axis_rows(view), "slices": AXIS_SLICES}
        turn, wholes_from_s = 0, 0.0
        while turn < self.workload.max_turns:
            left_s = self._for_turns_s
            pending = {n for n in view.sound() if turn < self.first_turns or view.needs_longer(n)}
            crew = view.alive()
            if not pending or not crew or (turn and left_s <= 0):
                break
            self.rng.shuffle(crew)
            seconds = max(1.0, left_s / len(crew) / max(1, self.first_turns - turn))
            if turn == 1 and self.whole_s:
                self.whole, wholes_from_s = self._fullest(view, crew), left_s
            waiting = deque(crew)
            while waiting:
                number = waiting.popleft()
                # asked anew: what ended one process is not let into the next
                rows = [n for n in view.sound(number) if n in pending]
                if rows and number in view.alive():
                    yield number, {"do": "pairs", "rows": rows, "rounds": self.workload.rounds, "seconds": seconds}
                if (heir := view.heir(number)) is not None:
                    waiting.appendleft(heir)
                if self.whole is not None:
                    yield from self._whole(view, min(1.0, 1 - self._for_turns_s / wholes_from_s))
            turn += 1
        if not self.is_last:
            return
        if self.whole_s:
            yield from self._whole(view, 1.0)
        if alive := view.alive():
            yield alive[-1], {"do": "judge", "rows": [REFERENCE, *view.sound()], "seconds": self.workload.quality_s}

    def _fullest(self, view: View, crew: list[int]) -> int:
        """The first of those that have built most rows: one that tries a single row again can take no whole runs."""
        return max(crew, key=lambda number: len(view.sound(number)))

    def _axis_rows(self, view: View) -> list[str]:
        return [n for n in AXIS_ROWS if n in (REFERENCE, *view.sound())]

    def _whole(self, view: View, until: float) -> Iterator[tuple[int, Order]]:
        """Whole runs, until this share of them is taken; by another process where the one that took them is gone."""
        while alive := view.alive():
            seconds = self.budget_s - self._gone_s if until == 1 else self.whole_s
            if self.whole not in alive:
                begun = self.whole is not None
                heir = None if self.whole is None else view.heir(self.whole)
                self.whole = heir if heir in alive else self._fullest(view, alive)
                if begun:  # what the other has taken of them counts, and is not taken off the pairs
                    seconds = max(self.whole_s * AGAIN_SHARE, self.whole_s - self._spent_on_whole_s)
            start_s = self._gone_s
            yield self.whole, {"do": "whole", "rows": [REFERENCE, *view.sound()], "seconds": seconds, "until": until,
                               "step_s": view.step_s()}  # fmt: skip
            self._spent_on_whole_s += self._gone_s - start_s
            if self.whole in view.alive():
                return


def left_by_building(budget_s: float, built_s: float, workload: Workload, processes: int) -> float:
    """The budget of a group of processes whose building took so long: less, where the preset says what it may take."""
    if workload.building_s is None:
        return budget_s
    over_s = built_s - workload.building_s * processes / workload.processes
    return max(LEAST_SHARE * budget_s, budget_s - max(0.0, over_s))


def building_order(rows: list[str], process: int, seed: int) -> list[str]:
    """Rows in an order drawn for each pair of processes, the second of which has it reversed.

    What is built first may decide where weights and code come to lie. That this is worth anything was not shown (of two
    rows alike, the one built second was ahead in six of eight processes: chance does that too); but were it, an order
    that is the same in every process would make it a property of the row, inside no interval.
    """
    order = Random(f"{seed} {process // 2}").sample(rows, len(rows))
    return order[::-1] if process % 2 else order
