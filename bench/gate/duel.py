"""The duel: slices of two sides, back to back on one randomly drawn core, in an order drawn by a fair coin.

Workers are fresh processes, several a side, and pairs cycle over them: two processes of the same code may differ by
more than what is looked for (their memory lies elsewhere), but the mean over several does not.
"""

import base64
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.gate.verdict import Pair, RowResult
from bench.gate.worker import BUILD_S, Worker, WorkerFault, due_s
from bench.sequential_test import FAIL, PASS

SLICE_S = 0.012  # a slice takes at least so long: shorter ones are ruled by the clock's grain and by switching


@dataclass
class Couples:
    """Workers of two sides, by couples that are timed against each other."""

    base: Sequence[Worker]
    this: Sequence[Worker]
    cores: Sequence[int]
    rng: random.Random
    this_row: str = ""  # the row that 'this' runs, where it is not the base's (to calibrate the gate itself)
    _turn: int = field(default=0)

    @property
    def next(self) -> int:
        """The couple whose turn it is."""
        return self._turn % len(self.base)

    def pair(self, row: str, calls: int, couple: int | None = None) -> Pair:
        """One pair of a couple, the next one or that asked for: same core, same seed, order by a fair coin."""
        if couple is None:
            couple = self.next
            self._turn += 1
        core = self.rng.choice(self.cores) if self.cores else None
        base_first, seed = self.rng.random() < 0.5, self.rng.getrandbits(48)
        base, this = self.base[couple], self.this[couple]
        for worker in (base, this):
            worker.pin(core)
        answers = {}
        for name, worker in (("base", base), ("this", this)) if base_first else (("this", this), ("base", base)):
            named = self.this_row or row if name == "this" else row
            within_s = due_s(worker, named, calls)
            answers[name] = worker.ask(within_s, do="slice", row=named, seed=seed, calls=calls)
        a, b = answers["base"], answers["this"]
        return Pair(
            a["cpu_s"] / calls, b["cpu_s"] / calls, a["wall_s"] / calls, b["wall_s"] / calls, base_first, couple, core,
            difference(a, b), _idle_share(a), _idle_share(b),
            a["mutated"], b["mutated"], a["repeated"], b["repeated"],
        )  # fmt: skip


def _idle_share(answer: dict) -> float:
    """CPU time spent while waiting, as a share of the slice's; a clock that read nothing is refused elsewhere."""
    return answer["idle_cpu_s"] / answer["cpu_s"] if answer["cpu_s"] > 0 else 0.0


def difference(base: dict, this: dict) -> float:
    """Largest difference of two answers' outputs, in units of the first one's root mean square; NaN if none fits."""
    if base["shape"] != this["shape"]:
        return float("nan")
    one, other = (np.frombuffer(base64.b64decode(a["output"]), np.float32).astype(float) for a in (base, this))
    scale = float(np.sqrt(np.mean(one**2)))
    return float(np.max(np.abs(one - other), initial=0.0)) / (scale or 1.0)


def cores_to_draw_from(threads: int, device: str) -> list[int]:
    """The cores a pair may be pinned to; none where pinning would strangle several threads, or is impossible."""
    if not hasattr(os, "sched_getaffinity") or threads > 1 or device != "cpu":
        return []
    return sorted(os.sched_getaffinity(0))


def build_all(workers: Sequence[Worker], rows: Iterable[str], cores: Sequence[int], say) -> dict[str, str]:
    """Build the rows in all of the workers at once; returns why for those that any of them cannot build."""
    faults: dict[str, str] = {}
    for i, worker in enumerate(workers):
        worker.pin(cores[i % len(cores)] if cores else None)
    for row in rows:
        say(f"building {row}")
        for worker in workers:
            worker.send(do="build", row=row)
        for worker in workers:
            try:
                worker.built[row] = worker.answer(BUILD_S)
            except WorkerFault as fault:
                faults.setdefault(row, f"{worker.side.name} cannot run it: {fault}")
    return faults


def judge(
    couples: Couples,
    rows: Sequence[RowResult],
    until: Callable[[], bool],
    decided: Callable[[RowResult], bool],
    confirming: bool = False,
    beside: Callable[[], None] = lambda: None,
    say=lambda text: None,
) -> None:
    """Rounds of one pair for each undecided row, in random order, until all are decided or the time is up.

    beside(): called once a round, for the control arm. A row whose code raises is MISSING from then on.
    """
    while True:
        left = [row for row in rows if not row.problem and not decided(row)]
        if not left or until():
            return
        couples.rng.shuffle(left)
        beside()
        for row in left:
            try:
                row.add(couples.pair(row.name, row.calls), confirming)
            except WorkerFault as fault:
                row.problem = f"raised while it was timed: {fault}"
            except ValueError as error:
                row.problem = f"could not be timed: {error}"
        say(f"{'confirming' if confirming else 'timing'}: {len(left)} undecided, round {len(rows[0].pairs)}")


def is_decided(row: RowResult, ratchet: bool = False) -> bool:
    """Whether the first processes have settled the row's time (under a ratchet, in both directions)."""
    charges = (row.slower, row.faster) if ratchet else (row.slower,)
    return all(charge.first.verdict in (PASS, FAIL) for charge in charges)


def deadline(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def calls_for(call_s: float) -> int:
    """How many calls make a slice."""
    return max(1, round(SLICE_S / max(call_s, 1e-7) + 0.49))
