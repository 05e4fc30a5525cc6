"""Two stored results side by side: each row's speed-up over its own reference, then and now, and a verdict.

Only ratios to the reference are compared, for seconds do not travel between hours or machines; ratios between
different implementations do not travel between machines either, so across machines this informs and no more.
"""

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from bench.gate.thresholds import Limits, Thresholds
from bench.measurement import Measurement
from bench.report.table import _table
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE
from bench.students_t import quantile

FINGERPRINT = ("machine", "torch", "python")  # equal: the same class of machine and software
WORK = ("model", "batch", "threads", "guidance", "device", "steps")  # equal: the same work


@dataclass(frozen=True)
class Change:
    """One row in two results: its slowdown from the first to the second, as a ratio less 1, with a 95 % interval."""

    row: str
    verdict: str
    value: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    note: str = ""


def foreign(a: Measurement, b: Measurement) -> str:
    """How two results differ in what they were measured on, or ''."""
    found = []
    for name in FINGERPRINT:
        one, other = (m.environment.get(name) for m in (a, b))
        # the version of Python to its second number
        if name == "python":
            one, other = (".".join(str(v).split(".")[:2]) if v else v for v in (one, other))
        if one != other:
            found.append(f"{name} {one} against {other}")
    for name in WORK:
        one, other = getattr(a.workload, name), getattr(b.workload, name)
        if one != other:
            found.append(f"{name} {one} against {other}")
    return ", ".join(found)


def changes(a: Measurement, b: Measurement, limits: Thresholds, between_sessions: float = 0.0) -> list[Change]:
    """Every row of the first result, and those new in the second.

    between_sessions: standard deviation of a row's log ratio from one session to the next; it widens the interval.
    """
    rows = []
    for name in dict.fromkeys([*a.rows, *b.rows]):
        if name == "reference":
            continue
        one, other = (m.row(name) if name in m.rows else None for m in (a, b))
        if one is None:
            rows.append(Change(name, "new", note="the first result has no such row"))
        elif one.status == "grey":
            rows.append(Change(name, "skipped", note=one.reason))
        elif one.status != "ok":
            rows.append(Change(name, "skipped", note=f"the first result could not measure it: {one.absence}"))
        elif other is None or other.status != "ok":
            why = "it has disappeared" if other is None else other.absence
            rows.append(Change(name, MISSING, note=why))
        else:
            then, now = (list(row.log_ratios().values()) for row in (one, other))
            rows.append(_change(name, then, now, limits.of(name), between_sessions))
    return rows


def _change(name: str, before: list[float], after: list[float], limits: Limits, between: float) -> Change:
    """From the log ratios of fresh processes, by Welch's interval with the smaller sample's degrees of freedom."""
    value = fmean(after) - fmean(before)
    if min(len(before), len(after)) < 2:
        return Change(name, UNSURE, math.expm1(value), note="one process gives no interval")
    variance = sum(stdev(v) ** 2 / len(v) for v in (before, after)) + 2 * between**2
    half = quantile(min(len(before), len(after)) - 1) * math.sqrt(variance)
    low, high = value - half, value + half
    verdict = UNSURE
    if low > math.log1p(limits.tolerated):
        verdict = FAIL
    elif high < math.log1p(limits.must_detect):
        verdict = PASS
    return Change(name, verdict, math.expm1(value), math.expm1(low), math.expm1(high))


def between_sessions(results: list[Measurement]) -> tuple[float, int]:
    """Standard deviation of the log ratios between sessions of one commit, and over how many differences.

    From results of the same commit and workload, pooled over rows; 0 differences where there is no such pair.
    """
    squares, freedom = 0.0, 0
    groups: dict[tuple, list[Measurement]] = {}
    for m in results:
        key = (m.environment["commit"], m.environment["machine"], m.environment["torch"], m.workload.batch,
               m.workload.model, m.environment["dirty"])  # fmt: skip
        groups.setdefault(key, []).append(m)
    for group in groups.values():
        for name in group[0].rows:
            means = [fmean(r.log_ratios().values()) for m in group if name in m.rows
                     for r in [m.row(name)] if r.status == "ok" and name != "reference"]  # fmt: skip
            if len(means) > 1:
                squares += stdev(means) ** 2 * (len(means) - 1)
                freedom += len(means) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def table(found: list[Change]) -> str:
    """The changes as a Markdown table, which reads well in a terminal too."""
    lines = []
    for change in found:
        interval = ""
        if not math.isnan(change.value):
            interval = f"{change.value:+.1%}"
            if math.isfinite(change.high):
                interval += f" [{change.low:+.1%}, {change.high:+.1%}]"
        lines.append([change.row, change.verdict, interval, change.note])
    return "\n".join(_table(("row", "verdict", "slowdown [95 %]", "note"), lines))
