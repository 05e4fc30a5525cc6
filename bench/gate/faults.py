"""What is broken in a row, one sentence each: slower, heavier, other pictures, or not the work it says it is.

Whatever the base does too is no fault: what is judged is the change. What a change of the kind of work is for can be
said in the thresholds file (`explained`), and is then let through; time, memory and pictures are judged all the same.
"""

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.sequential_test import FAIL

if TYPE_CHECKING:
    from bench.gate.verdict import RowResult

IDLE_SHARE = 0.1  # of a slice's CPU time: who spends more while waiting works behind the clock's back
SIGNIFICANT_BITS = {"c10::Half": 11, "c10::BFloat16": 8, "float": 24, "double": 53, "signed char": 7}


def faults(row: "RowResult") -> list[str]:
    """Every fault of a row."""
    checks = [slower, other_pictures, more_memory, works_on, changes_inputs]
    if not row.limits.explained:
        checks += [other_steps, not_compiled, less_precise]
    return [text for check in checks if (text := check(row))]


def slower(row: "RowResult") -> str:
    """By a clock, confirmed by fresh processes."""
    if row.time_verdict != FAIL:
        return ""
    (value, low, high), wall = row.slowdown, row.wall_slowdown[0]
    text = f"slower by {value:.1%} (95 % interval {shown_percent(low)} to {shown_percent(high)})"
    if value < row.rule.tolerated < wall:
        text += f"; it waits rather than works: by the wall clock {wall:+.1%}"
    return text


def other_pictures(row: "RowResult") -> str:
    """Of the timed calls themselves, on inputs that change with every pair; with what may explain it."""
    if not row.pairs or row.difference <= row.limits.picture:
        return ""
    return (
        f"other pictures: on the same noise its outputs differ by {row.difference:.2g} of their root mean square "
        f"(allowed {row.limits.picture:g}){_from_a_cache(row)}{_less_work(row)}"
    )


def _from_a_cache(row: "RowResult") -> str:
    mine, theirs = ([getattr(p, f"{side}_repeated") for p in row.pairs + row.confirming] for side in ("this", "base"))
    if not any(mine) or any(theirs):
        return ""
    return f"; it answers from a cache: {sum(mine)} of {len(mine)} times what it had answered to other inputs"


def _less_work(row: "RowResult") -> str:
    mine, theirs = (sum(_inspected(row, side, "heavy", {}).values()) for side in ("this", "base"))
    if mine >= theirs:
        return ""
    return f"; it skips work: {mine} convolutions and matrix products a call, the base {theirs}"


def more_memory(row: "RowResult") -> str:
    """Live tensor bytes at the peak of a steady call, counted, not sampled."""
    rise, bytes_ = row.memory_rise, row.memory_bytes
    if rise is None:
        return ""
    more = bytes_["this"] - bytes_["base"]
    if rise <= row.limits.memory or more <= row.limits.memory_floor_kib * 1024:
        return ""
    return f"peak memory up by {rise:.1%} ({more / 2**20:.2f} MiB)"


def works_on(row: "RowResult") -> str:
    """On another thread, after the call has returned."""
    if not row.pairs:
        return ""
    idle, base_idle = (median(getattr(p, f"{side}_idle") for p in row.pairs) for side in ("this", "base"))
    if idle <= IDLE_SHARE or idle <= 2 * base_idle:
        return ""
    return f"works on after it has returned: {idle:.0%} of a slice's CPU time is spent while it should be waiting"


def changes_inputs(row: "RowResult") -> str:
    """In place, so that whoever calls it again gets something else."""
    pairs = row.pairs + row.confirming
    if not any(p.this_mutated for p in pairs) or any(p.base_mutated for p in pairs):
        return ""
    return "changes its inputs in place"


def other_steps(row: "RowResult") -> str:
    """Time is judged by the step: a row that takes fewer is another row."""
    mine, theirs = (row.built.get(side, {}).get("steps") for side in ("this", "base"))
    return "" if mine == theirs else f"takes {mine} steps where the base takes {theirs}"


def not_compiled(row: "RowResult") -> str:
    """A row that was compiled and now runs eagerly does not do what its name says."""
    mine, theirs = (row.built.get(side, {}).get("graphs", 0) for side in ("this", "base"))
    return "falls back to eager: nothing was compiled, the base compiled" if theirs and not mine else ""


def less_precise(row: "RowResult") -> str:
    """The heavy operations in a type of fewer significant bits than any that the base computes in."""
    mine, theirs = (_inspected(row, side, "heavy", {}) for side in ("this", "base"))
    if not theirs:
        return ""
    lowest = min(SIGNIFICANT_BITS.get(kind, 0) for kind in theirs)
    lower = {kind: n for kind, n in mine.items() if SIGNIFICANT_BITS.get(kind, 99) < lowest}
    if not lower:
        return ""
    kind, n = max(lower.items(), key=lambda item: item[1])
    of = max(theirs.items(), key=lambda item: item[1])[0]
    return f"computes in another type: {n} convolutions and matrix products in {_type(kind)}, the base's in {_type(of)}"


def _type(kind: str) -> str:
    names = {"c10::Half": "float16", "c10::BFloat16": "bfloat16", "float": "float32", "double": "float64"}
    return names.get(kind, kind)


def _inspected(row: "RowResult", side: str, name: str, otherwise: Any) -> Any:
    return row.inspected.get(side, {}).get(name, otherwise)


def shown_percent(value: float) -> str:
    """A ratio less 1 in per cent; '?' where it is not bounded."""
    return "?" if not abs(value) < float("inf") or value <= -1 else f"{value:+.1%}"
