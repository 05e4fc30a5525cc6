"""What a gate's run found, as raw pairs, and the verdicts derived from it.

PASS: no slower, no heavier, same pictures. FAIL: one of these is broken, and for time fresh processes confirmed it.
UNSURE: the budget did not suffice. MISSING: the row could not be judged. Not knowing is not passing.
"""

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from bench.gate.faults import faults, shown_percent
from bench.gate.thresholds import Limits
from bench.sequential_test import (
    FAIL,
    MISSING,
    PASS,
    UNSURE,
    Rule,
    SequentialTest,
    log_evidence,
    slowdown_interval,
)

PROTOCOL = 1
OK_EXIT, REGRESSION_EXIT, UNJUDGED_EXIT = 0, 1, 2


@dataclass(frozen=True)
class Pair:
    """One slice of each side, back to back on one core; times in seconds a call."""

    base_s: float
    this_s: float
    base_wall_s: float
    this_wall_s: float
    base_first: bool
    couple: int  # which pair of workers
    core: int | None
    difference: float = 0.0  # largest between the outputs, in units of the base output's root mean square
    base_idle: float = 0.0  # CPU time spent while waiting, as a share of the slice's
    this_idle: float = 0.0
    base_mutated: bool = False  # its inputs
    this_mutated: bool = False
    base_repeated: bool = False  # what it had answered to other inputs
    this_repeated: bool = False

    @property
    def d(self) -> float:
        return _log_ratio(self.this_s, self.base_s)

    @property
    def d_wall(self) -> float:
        return _log_ratio(self.this_wall_s, self.base_wall_s)


@dataclass
class Charge:
    """What a row is suspected of: to be slower (sign 1) or faster (sign -1) than is tolerated.

    The first processes bring it up, fresh ones confirm it; neither counts for the other.
    """

    rule: Rule
    sign: int

    def __post_init__(self):
        self.first, self.fresh = SequentialTest(self.rule), SequentialTest(self.rule)

    def add(self, pair: Pair, confirming: bool) -> None:
        (self.fresh if confirming else self.first).add(self.sign * pair.d, self.sign * pair.d_wall)

    @property
    def raised(self) -> bool:
        return self.first.verdict == FAIL

    @property
    def confirmed(self) -> bool:
        return self.fresh.confirms

    @property
    def refuted(self) -> bool:
        """Whether the fresh processes show, by both clocks, no more than what is tolerated: nothing to confirm."""
        limit, needed = self.rule.tolerated, math.log(self.rule.pass_at)
        both = (self.fresh.d, self.fresh.d_wall)
        return bool(self.fresh.d) and all(log_evidence(d, limit, -1)[-1] >= needed for d in both)

    @property
    def stands(self) -> bool:
        return self.raised and self.confirmed

    @property
    def settled(self) -> bool:
        """Whether more pairs of fresh processes would change nothing."""
        return not self.raised or self.confirmed or self.refuted


@dataclass
class RowResult:
    """One row: its limits, the pairs of the first processes and those of the fresh ones that confirm."""

    name: str
    limits: Limits
    rule: Rule
    calls: int = 1  # of a slice
    pairs: list[Pair] = field(default_factory=list)
    confirming: list[Pair] = field(default_factory=list)
    built: dict[str, dict[str, Any]] = field(default_factory=dict)  # by side: what building it told
    inspected: dict[str, dict[str, Any]] = field(default_factory=dict)  # by side: memory and heavy operations
    problem: str = ""  # why it could not be judged
    skipped: str = ""  # why there is nothing to judge

    @cached_property
    def slower(self) -> "Charge":
        return Charge(self.rule, 1)

    @cached_property
    def faster(self) -> "Charge":
        return Charge(self.rule, -1)

    def add(self, pair: Pair, confirming: bool = False) -> None:
        """Take in a pair; raises ValueError, and keeps nothing, where a clock read nothing."""
        for charge in (self.slower, self.faster):
            charge.add(pair, confirming)
        (self.confirming if confirming else self.pairs).append(pair)

    @property
    def time_verdict(self) -> str:
        if self.problem or not self.pairs:
            return MISSING
        if self.slower.raised:
            return FAIL if self.slower.confirmed else UNSURE
        return self.slower.first.verdict

    @property
    def evidences(self) -> tuple[float, float]:
        """log10 of the evidence for a slowdown: of the first processes, and of the fresh ones."""
        return self.slower.first.log_fail / math.log(10), self.slower.fresh.log_fail / math.log(10)

    @property
    def slowdown(self) -> tuple[float, float, float]:
        """(value, low, high) by the deciding clock, as a ratio less 1; 95 %, valid at any stopping time."""
        return slowdown_interval([pair.d for pair in self.pairs + self.confirming])

    @property
    def wall_slowdown(self) -> tuple[float, float, float]:
        return slowdown_interval([pair.d_wall for pair in self.pairs + self.confirming])

    @property
    def base_ms(self) -> float:
        return median(pair.base_s for pair in self.pairs) * 1e3 if self.pairs else math.nan

    @property
    def difference(self) -> float:
        """Largest difference between the two sides' timed outputs; NaN counts as the largest."""
        found = [pair.difference for pair in self.pairs + self.confirming]
        return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)

    @property
    def memory_bytes(self) -> dict[str, int]:
        """By side: live tensor bytes at the peak of a steady call."""
        return {side: found["peak_bytes"] + found["resident_bytes"] for side, found in self.inspected.items()}

    @property
    def memory_rise(self) -> float | None:
        """Rise of the live tensor bytes at peak, as a ratio less 1."""
        found = self.memory_bytes
        return found["this"] / max(1, found["base"]) - 1 if found.keys() == {"base", "this"} else None

    @property
    def faults(self) -> list[str]:
        return faults(self)

    @property
    def verdict(self) -> str:
        if self.problem:
            return MISSING
        return FAIL if self.faults else self.time_verdict

    @property
    def note(self) -> str:
        """Why the verdict is what it is, in a sentence; '' for a plain pass."""
        if self.problem:
            return self.problem
        if self.faults:
            return "; ".join(self.faults)
        if self.time_verdict == UNSURE and self.slower.raised:
            first, fresh = self.evidences
            return f"slower at first (evidence 10^{first:.1f}), not confirmed by fresh processes (10^{fresh:.1f})"
        if self.time_verdict == UNSURE:
            return f"undecided after {len(self.pairs)} pairs; give it a longer --budget"
        return ""


@dataclass
class GateResult:
    """One run of the gate."""

    base: str
    this: str
    environment: dict[str, Any]
    started: str
    command: str
    seed: int
    rows: list[RowResult] = field(default_factory=list)
    control: RowResult | None = None
    phases_s: dict[str, float] = field(default_factory=dict)  # wall seconds: starting, building, timing, inspecting
    stopped: str = ""  # what ended the run early
    strict: bool = False
    ratchet: bool = False
    certificate: str = ""
    remarks: list[str] = field(default_factory=list)  # what makes this run weaker than it could be

    @property
    def contaminated(self) -> str:
        """Why the run cannot be trusted: the base differs from itself, or could not be held against itself."""
        control = self.control
        if control is not None and control.problem:
            return control.problem
        if control is None or not control.pairs:
            return ""
        faults = [f for f in control.faults if not f.startswith("peak")]
        if control.slower.raised or control.faster.raised:
            value, low, high = control.slowdown
            faults.append(
                f"the base against itself reads {value:+.1%} ({shown_percent(low)} to {shown_percent(high)}); "
                "the machine, not the code, makes a difference here"
            )
        return "; ".join(faults)

    @property
    def improved(self) -> list[RowResult]:
        return [row for row in self.rows if row.faster.stands and not row.limits.explained]

    @property
    def exit_code(self) -> int:
        """0 nothing regressed, 1 a regression, 2 could not be judged."""
        verdicts = {row.verdict for row in self.rows if not row.skipped}
        if self.contaminated or not verdicts:
            return UNJUDGED_EXIT
        if FAIL in verdicts or (self.ratchet and self.improved):
            return REGRESSION_EXIT
        if MISSING in verdicts or self.stopped or (self.strict and UNSURE in verdicts):
            return UNJUDGED_EXIT
        return OK_EXIT

    @property
    def headline(self) -> str:
        if self.contaminated:
            return f"CONTAMINATED: {self.contaminated}"
        counts = {
            v: sum(row.verdict == v for row in self.rows if not row.skipped) for v in (FAIL, MISSING, UNSURE, PASS)
        }
        said = ", ".join(f"{n} {v}" for v, n in counts.items() if n) or "no row could be judged"
        return said + (f"; stopped early: {self.stopped}" if self.stopped else "")

    def json(self) -> dict[str, Any]:
        """Raw pairs and verdicts."""
        return {
            "kind": "gate", "protocol": PROTOCOL, "base": self.base, "this": self.this, "started": self.started,
            "command": self.command, "seed": self.seed, "environment": self.environment, "phases_s": self.phases_s,
            "stopped": self.stopped, "contaminated": self.contaminated,
            "certificate": self.certificate, "remarks": self.remarks, "exit_code": self.exit_code,
            "headline": self.headline,
            "rows": [_row_json(row) for row in self.rows],
            "control": None if self.control is None else _row_json(self.control),
        }  # fmt: skip


def _row_json(row: RowResult) -> dict[str, Any]:
    value, low, high = row.slowdown
    first, fresh = row.evidences
    return {
        "row": row.name, "verdict": row.verdict, "time_verdict": row.time_verdict, "note": row.note,
        "skipped": row.skipped, "slowdown": value, "low": low, "high": high,
        "log10_evidence": first, "log10_evidence_fresh": fresh, "difference": row.difference,
        "built": row.built, "inspected": row.inspected, "calls": row.calls, "rule": asdict(row.rule),
        "limits": asdict(row.limits),
        "pairs": [asdict(pair) for pair in row.pairs], "confirming": [asdict(pair) for pair in row.confirming],
    }  # fmt: skip


def _log_ratio(this_s: float, base_s: float) -> float:
    """ln(this / base); NaN where a clock read nothing, which the test refuses."""
    return math.log(this_s / base_s) if this_s > 0 and base_s > 0 else math.nan
