"""What a gate's run found, as raw pairs, and the verdicts derived from it.

PASS: no slower, no heavier, same pictures. FAIL: one of these is broken, and for time fresh processes confirmed it.
UNSURE: the budget did not suffice. MISSING: the row could not be judged. Not knowing is not passing.
"""

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from bench.gate.thresholds import Limits
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE, Rule, SequentialTest, slowdown_interval

PROTOCOL = 1
OK_EXIT, REGRESSION_EXIT, UNJUDGED_EXIT = 0, 1, 2
IDLE_SHARE = 0.1  # of a slice's CPU time: who spends more while waiting works behind the clock's back
FASTER = "FASTER"


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

    @property
    def d(self) -> float:
        return _log_ratio(self.this_s, self.base_s)

    @property
    def d_wall(self) -> float:
        return _log_ratio(self.this_wall_s, self.base_wall_s)


@dataclass
class RowResult:
    """One row: its limits, the pairs of the first processes and those of the fresh ones that confirm."""

    name: str
    limits: Limits
    rule: Rule
    calls: int = 1  # of a slice
    pairs: list[Pair] = field(default_factory=list)
    confirming: list[Pair] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)  # by side: live tensor bytes at the peak of a call
    problem: str = ""  # why it could not be judged
    skipped: str = ""  # why there is nothing to judge

    @cached_property
    def _tests(self) -> dict[str, SequentialTest]:
        return {name: SequentialTest(self.rule) for name in ("time", "confirm", "faster", "confirm faster")}

    def add(self, pair: Pair, confirming: bool = False) -> None:
        """Take in a pair."""
        (self.confirming if confirming else self.pairs).append(pair)
        ahead, mirror = ("confirm", "confirm faster") if confirming else ("time", "faster")
        self._tests[ahead].add(pair.d, pair.d_wall)
        self._tests[mirror].add(-pair.d, -pair.d_wall)

    @property
    def provisional(self) -> str:
        """The time verdict of the first processes alone."""
        return self._tests["time"].verdict

    @property
    def faster(self) -> str:
        """FAIL where the first processes show an improvement beyond what is tolerated as noise."""
        return self._tests["faster"].verdict

    @property
    def confirmed(self) -> bool:
        return self._tests["confirm"].confirms

    @property
    def confirmed_faster(self) -> bool:
        return self._tests["confirm faster"].confirms

    @property
    def refuted(self) -> bool:
        """Whether the fresh processes show the opposite of what they were to confirm."""
        return self._tests["confirm"].verdict == PASS

    @property
    def time_verdict(self) -> str:
        if self.problem or not self.pairs:
            return MISSING
        if self.provisional == FAIL:
            return FAIL if self.confirmed else UNSURE
        return self.provisional

    @property
    def evidences(self) -> tuple[float, float]:
        """log10 of the evidence for a slowdown: of the first processes, and of the fresh ones."""
        return self._tests["time"].log_fail / math.log(10), self._tests["confirm"].log_fail / math.log(10)

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
    def memory_rise(self) -> float | None:
        """Rise of the live tensor bytes at peak, as a ratio less 1."""
        if self.memory_bytes.keys() != {"base", "this"}:
            return None
        return self.memory_bytes["this"] / max(1, self.memory_bytes["base"]) - 1

    @property
    def faults(self) -> list[str]:
        """What is broken, one sentence each."""
        found = []
        if self.time_verdict == FAIL:
            value, low, high = self.slowdown
            clock = ""
            wall = self.wall_slowdown
            if value < self.rule.tolerated < wall[0]:
                clock = f"; it waits rather than works: by the wall clock {wall[0]:+.1%}"
            found.append(f"slower by {value:.1%} (95 % interval {shown_percent(low)} to {shown_percent(high)}){clock}")
        if self.pairs and not self.difference <= self.limits.picture:
            found.append(
                f"other pictures: on the same noise its outputs differ by {self.difference:.2g} of their root mean "
                f"square (allowed {self.limits.picture:g})"
            )
        rise = self.memory_rise
        if rise is not None:
            more = self.memory_bytes["this"] - self.memory_bytes["base"]
            if rise > self.limits.memory and more > self.limits.memory_floor_kib * 1024:
                found.append(f"peak memory up by {rise:.1%} ({more / 2**20:.2f} MiB)")
        if self.pairs:
            idle, base_idle = (median(getattr(p, f"{side}_idle") for p in self.pairs) for side in ("this", "base"))
            if idle > IDLE_SHARE and idle > 2 * base_idle:
                found.append(f"works on after it has returned: {idle:.0%} of a slice's CPU time is spent while waiting")
        return found

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
        if self.time_verdict == UNSURE and self.provisional == FAIL:
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
    took_s: float = 0.0
    timing_s: float = 0.0
    stopped: str = ""  # what ended the run early
    strict: bool = False
    ratchet: bool = False
    certificate: str = ""

    @property
    def contaminated(self) -> str:
        """Why the run cannot be trusted: the base differs from itself."""
        control = self.control
        if control is None or not control.pairs:
            return ""
        faults = [f for f in control.faults if not f.startswith("peak")]
        if FAIL in (control.provisional, control.faster):
            value, low, high = control.slowdown
            faults.append(
                f"the base against itself reads {value:+.1%} ({shown_percent(low)} to {shown_percent(high)}); "
                "the machine, not the code, makes a difference here"
            )
        return "; ".join(faults)

    @property
    def improved(self) -> list[RowResult]:
        return [row for row in self.rows if row.faster == FAIL and row.confirmed_faster]

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
            "command": self.command, "seed": self.seed, "environment": self.environment, "took_s": self.took_s,
            "timing_s": self.timing_s, "stopped": self.stopped, "contaminated": self.contaminated,
            "certificate": self.certificate, "exit_code": self.exit_code, "headline": self.headline,
            "rows": [_row_json(row) for row in self.rows],
            "control": None if self.control is None else _row_json(self.control),
        }  # fmt: skip


def _row_json(row: RowResult) -> dict[str, Any]:
    value, low, high = row.slowdown
    first, fresh = row.evidences
    finite = {"slowdown": value, "low": low, "high": high}
    return {
        "row": row.name, "verdict": row.verdict, "time_verdict": row.time_verdict, "note": row.note,
        "skipped": row.skipped, **{k: v if math.isfinite(v) else None for k, v in finite.items()},
        "log10_evidence": first, "log10_evidence_fresh": fresh, "difference": row.difference,
        "memory_bytes": row.memory_bytes, "calls": row.calls, "rule": asdict(row.rule), "limits": asdict(row.limits),
        "pairs": [asdict(pair) for pair in row.pairs], "confirming": [asdict(pair) for pair in row.confirming],
    }  # fmt: skip


def _log_ratio(this_s: float, base_s: float) -> float:
    """ln(this / base); NaN where a clock read nothing, which the test refuses."""
    return math.log(this_s / base_s) if this_s > 0 and base_s > 0 else math.nan


def shown_percent(value: float) -> str:
    """A ratio less 1 in per cent; '?' where it is not bounded."""
    return "?" if not math.isfinite(value) or value <= -1 else f"{value:+.1%}"
