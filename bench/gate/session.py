"""One run of the gate, from two trees to verdicts: who is started when, and how the seconds are spent."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.gate.duel import Couples, build_all, calls_for, cores_to_draw_from, deadline, is_decided, judge
from bench.gate.thresholds import Limits, Thresholds
from bench.gate.verdict import GateResult, Pair, RowResult
from bench.gate.worker import Side, Worker, WorkerFault, WorkerLost, due_s, start_all, stop_all
from bench.sequential_test import Rule
from sampler.errors import UsageError, unknown

WORKERS = 4  # a side; pairs cycle over them
INSPECT_S, INSPECTED_CALLS = 600.0, 10  # a profiled call of a large model; what it is like in calls that are not
FRESH_WORKERS = 3  # a side, started for a confirmation only


@dataclass(frozen=True)
class Job:
    """What a gate is asked to do. task: handed to the workers (see worker_script)."""

    base: Side
    this: Side
    task: dict[str, Any]
    thresholds: Thresholds
    rows: list[str] | None = None
    budget_s: float = 120.0
    workers: int = WORKERS
    fresh_workers: int = FRESH_WORKERS
    seed: int = 0
    strict: bool = False
    ratchet: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    command: str = ""


def run_gate(job: Job, say: Callable[[str], None] = lambda text: None) -> GateResult:
    """Judge every row that both sides know; whatever happens, no worker is left behind."""
    result = GateResult(
        job.base.label, job.this.label, job.environment, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), job.command,
        job.seed, strict=job.strict, ratchet=job.ratchet,
    )  # fmt: skip
    say(f"starting {2 * job.workers} workers")
    started: list[list[Worker]] = []
    try:
        with _spent(result, "starting"):
            started = start_all([job.base, job.this], job.task, job.workers)
        _measure(job, result, started, say)
    except WorkerFault as fault:
        raise UsageError(f"the gate cannot start: {fault}") from None
    except WorkerLost as lost:
        result.stopped = str(lost)
        for row in result.rows:
            if not row.skipped and not is_decided(row):
                row.problem = row.problem or f"not decided when the run ended: {lost}"
    finally:
        stop_all(started)
    return result


@contextmanager
def _spent(result: GateResult, phase: str) -> Iterator[None]:
    """Note the seconds that a phase takes, however it ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        result.phases_s[phase] = result.phases_s.get(phase, 0.0) + time.monotonic() - began


def _measure(job: Job, result: GateResult, started: list[list[Worker]], say) -> None:
    rng = random.Random(job.seed)
    base, this = started
    cores = cores_to_draw_from(job.task["threads"], job.task["device"])
    if not cores and job.task["device"] == "cpu":
        result.remarks.append(NOT_PINNED)
    judged = _rows(job, result, base[0], this[0])
    names = [row.name for row in judged]
    with _spent(result, "building"):
        faults = build_all([base[0], this[0]], names, cores, say)  # the first ones fill the compilers' caches
        able = [name for name in names if name not in faults]
        faults |= build_all([*base[1:], *this[1:]], able, cores, say) if job.workers > 1 else {}
    for row in judged:
        row.problem = faults.get(row.name, "")
    able = [name for name in names if name not in faults]
    if not able:
        return
    for row in judged:
        if not row.problem:
            row.built = {"base": base[0].built[row.name], "this": this[0].built[row.name]}
            call_s = median(worker.built[row.name]["call_s"] for worker in base)
            row.calls = calls_for(call_s)
            row.rule = row.limits.rule(len(able), call_s)

    couples = Couples(base, this, cores, rng)
    control = result.control = _control(judged, able)
    beside = Beside(control, next(r for r in judged if r.name == control.name.removesuffix(CONTROL)), couples)

    with _spent(result, "timing"):
        judge(couples, judged, deadline(job.budget_s), lambda r: is_decided(r, job.ratchet), beside=beside, say=say)
    suspects = [r for r in judged if not r.problem and (r.slower.raised or (job.ratchet and r.faster.raised))]
    if suspects and not result.contaminated:
        _confirm(job, result, suspects, cores, rng, say)
    with _spent(result, "inspecting"):
        for row in judged:
            if not row.problem:
                say(f"inspecting {row.name}")
                _inspect(row, base[0], this[0])


class Beside:
    """The control arm: once a round the base's own workers, half against half, as processes of two sides differ.

    This side's do the same, of which nothing is kept: a worker that has just run finds its caches as it left them, so
    both sides must run equally often; and of neither do those run whose turn is next.
    """

    def __init__(self, control: RowResult, row: RowResult, couples: Couples):
        self.control, self.row, self.couples = control, row, couples
        self.half = len(couples.base) // 2

    def __call__(self) -> None:
        rng, half = self.couples.rng, self.half
        couple = rng.choice([j for j in range(half) if half == 1 or j != self.couples.next % half] or [0])
        sides = [self._base, self._this]
        rng.shuffle(sides)
        for side in sides:
            side(couple)

    def _pair(self, workers: Sequence[Worker], couple: int) -> Pair:
        halves = workers[: self.half] or workers, workers[self.half : 2 * self.half] or workers
        return Couples(*halves, self.couples.cores, self.couples.rng).pair(self.row.name, self.control.calls, couple)

    def _base(self, couple: int) -> None:
        if self.control.problem:
            return
        try:
            self.control.add(self._pair(self.couples.base, couple))
        except (WorkerFault, ValueError) as fault:
            self.control.problem = f"the base could not be timed against itself: {fault}"

    def _this(self, couple: int) -> None:
        if self.row.problem:
            return
        try:
            self._pair(self.couples.this, couple)
        except WorkerFault as fault:
            self.row.problem = f"raised while it was timed: {fault}"


def _inspect(row: RowResult, base: Worker, this: Worker) -> None:
    """Untimed, so both at once."""
    sides = (("base", base), ("this", this))
    for _, worker in sides:
        worker.send(do="inspect", row=row.name)
    for name, worker in sides:
        try:
            row.inspected[name] = worker.answer(due_s(worker, row.name, INSPECTED_CALLS, INSPECT_S))
        except WorkerFault as fault:
            row.problem = f"raised while it was inspected, in {worker.side.name}: {fault}"


NOT_PINNED = (
    "the two of a pair were not held on one core (several threads, or a system that cannot): cores differ by more "
    "than what is looked for, so a FAIL may be the machine's"
)
CONTROL = " (base against itself)"


def _control(judged: Sequence[RowResult], able: list[str]) -> RowResult:
    """The row that is timed with the base on both sides: the reference where it is judged, else the first."""
    like = next((r for r in judged if r.name == "reference" and r.name in able), None)
    like = like or next(r for r in judged if r.name in able)
    rule = Rule(like.rule.tolerated, like.rule.must_detect, like.rule.wall_must_detect, rows=2)  # two directions
    return RowResult(like.name + CONTROL, like.limits, rule, like.calls)


def _rows(job: Job, result: GateResult, base: Worker, this: Worker) -> list[RowResult]:
    """Every row asked for; those that cannot be judged say why, and those that can are returned."""
    known = list(dict.fromkeys([*base.rows, *this.rows]))
    for name in job.rows or []:
        if name not in known:
            raise unknown("row", name, known)
    judged = []
    for name in job.rows or known:
        limits: Limits = job.thresholds.of(name)
        row = RowResult(name, limits, Rule())
        result.rows.append(row)
        if name not in this.rows:
            row.problem = "it has disappeared: the base has this row, this side does not"
        elif name not in base.rows:
            row.skipped = "new: the base has no such row"
        elif base.rows[name] and this.rows[name]:
            row.skipped = f"cannot run here: {this.rows[name]}"
        elif this.rows[name]:
            row.problem = f"it ran before and now does not: {this.rows[name]}"
        elif base.rows[name]:
            row.skipped = f"the base could not run it: {base.rows[name]}"
        else:
            judged.append(row)
    return judged


def _confirm(
    job: Job, result: GateResult, suspects: list[RowResult], cores: list[int], rng: random.Random, say
) -> None:
    """Time the suspects again in fresh processes, until these reach the evidence by themselves or refute it."""
    say(f"confirming {', '.join(r.name for r in suspects)} in fresh processes")
    with _spent(result, "starting"):
        started = start_all([job.base, job.this], job.task, job.fresh_workers)
    try:
        with _spent(result, "building"):
            faults = build_all([w for side in started for w in side], [r.name for r in suspects], cores, say)
        for row in suspects:
            row.problem = faults.get(row.name, "")

        def settled(row: RowResult) -> bool:
            return row.slower.settled and (not job.ratchet or row.faster.settled)

        base, this = started
        fresh = Couples(base, this, cores, rng)
        with _spent(result, "timing"):
            judge(fresh, suspects, deadline(job.budget_s / 2), settled, confirming=True, say=say)
    finally:
        stop_all(started)
