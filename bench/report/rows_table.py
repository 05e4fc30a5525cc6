"""The table of the page: a line a contender, each cell as it is shown and as it is sorted, and its command."""

import math
import shlex
from dataclasses import dataclass, fields

from bench.contenders import REFERENCE
from bench.cost import Cost
from bench.measurement import Measurement, Row
from bench.report.answer import verdict
from bench.report.quality_chart import losses_of
from bench.report.sources import Beside
from bench.report.table import _mib, _number, lost_in_short, pays_from, quality_in_short, shown
from bench.students_t import Interval
from bench.workload import Workload

MOST_ROWS = 1000  # in the page; rows.csv holds them all


@dataclass(frozen=True)
class Column:
    """heading, unit; meaning: what it is, in a sentence; text: sorted by its letters."""

    heading: str
    unit: str
    meaning: str
    text: bool = False


COLUMNS = (
    Column("row", "", "one contender; what it changes stands below its name", text=True),
    Column("speed-up", "× reference [95 %]", "of a whole run over the reference, interval over fresh processes"),
    Column("pictures", "kernel distance lost", "what happens to the pictures; a number where they were judged"),
    Column("memory", "MiB", "live tensors at the steady peak"),
    Column("step", "ms", "median time of a step by the deciding clock"),
    Column("steps", "count", "network steps of a whole run"),
    Column("whole run", "s", "a whole run of the batch; ~: extrapolated from the median step"),
    Column("first call", "s", "the first call of a process, compiling included"),
    Column("pays from", "images", "images from which on the row beats the reference, its first call included"),
    Column("over textbook", "× [95 %]", "of a whole run over a textbook’s loop"),
    Column("over best lossless", "× [95 %]", "of a whole run over the best row that changes no picture"),
    Column("throughput", "images/s", "images a second of a whole run"),
    Column("same-noise error", "[-1, 1]", "largest difference from the reference after 20 steps on the same noise"),
    Column("slices", "pairs", "timed pairs of slices behind the figures"),
)


LEGEND = (
    "Speed-up is of a whole run over `reference`, from interleaved pairs of slices; in brackets the 95 % interval over "
    "fresh processes. Click a heading to sort; a command is copied as it stands."
)


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | str | None = None  # what it is sorted by; None: last


@dataclass(frozen=True)
class Line:
    """One contender. kind: 'lossless', 'lossy', 'failed' or 'absent'; note: why it has no figures."""

    row: Row
    kind: str
    note: str
    command: str
    cells: tuple[Cell, ...]
    evidence: str


def lines(measurement: Measurement, beside: Beside) -> list[Line]:
    """Every row, those with figures first."""
    rows = [measurement.row(name) for name in measurement.rows]
    rows.sort(key=lambda row: ("ok", "red", "missing", "grey").index(row.status))
    return [_line(row, beside) for row in rows[:MOST_ROWS]]


def _line(row: Row, beside: Beside) -> Line:
    command, cost = command_line(row), Cost(row)
    if row.status != "ok":
        note = f"FAILED: {row.reason}" if row.status == "red" else row.absence
        return Line(row, "failed" if row.status == "red" else "absent", note, command, (Cell(row.name, row.name),),
                    cost.evidence if row.status == "red" else "")  # fmt: skip
    first, pays = row.first_call_s, pays_from(cost)
    live = _mib((cost.phase("steady") or {}).get("live_peak"))
    whole = ("" if row.whole_run_timed_s is not None else "~") + _number(row.whole_run_s, ".2f")
    cells = (
        Cell(row.name, row.name),
        Cell("1 (reference)", 1.0) if row.name == REFERENCE else _ratio(row.speedup),
        _pictures(row, beside), Cell(_number(live, ".1f"), live),
        Cell(_number(row.step_ms, ".2f"), row.step_ms), Cell(f"{row.steps:,}", row.steps), Cell(whole, row.whole_run_s),
        Cell("–" if first is None else f"{first[0]:.2f}" + (" compiled" if first[1] else ""), first and first[0]),
        Cell(pays, _pays(cost, pays)), _ratio(row.speedup_over_textbook), _ratio(row.speedup_over_best_lossless),
        Cell(_number(row.images_per_s, ".3g"), row.images_per_s),
        Cell("–" if row.probe_error is None else f"{row.probe_error:.1e}", row.probe_error),
        Cell(f"{len(row.pairs):,}", len(row.pairs)),
    )  # fmt: skip
    notes = ["interval needs a longer run"] * row.needs_longer + [cost.implausible] * bool(cost.implausible)
    return Line(row, "lossless" if row.lossless else "lossy", "; ".join(notes), command, cells, cost.evidence)


def _ratio(interval: Interval | None) -> Cell:
    return Cell(shown(interval), None if interval is None else interval.value)


def _pictures(row: Row, beside: Beside) -> Cell:
    """What the row does to the pictures: as this run judged it, else as the quality run beside it did."""
    if row.lossless:
        return Cell({"–": "the same"}.get(text := quality_in_short(row), text), 0.0)
    known = None if beside.quality is None or row.figures is not None else losses_of(row, beside.quality)
    if not known:
        figures = row.figures
        value = None if figures is None or "kernel" not in figures.losses else figures.losses["kernel"].value
        return Cell(quality_in_short(row), value)
    said = verdict(row, beside)[0].lower() or "reported"
    return Cell(f"{said}: {lost_in_short(known)}", known["kernel"].value)


def _pays(cost: Cost, text: str) -> float | None:
    if text in ("–", "no gain shown"):
        return None
    count = cost.break_even_over_reference
    return None if count is None else min(count, 1e18)


def command_line(row: Row) -> str:
    """What measures this row again, in the same workload."""
    w = row.measurement.workload
    plain = {f.name: f.default for f in fields(Workload)}
    asked = [f"--{name} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}"
             for name in ("preset", "device", "model", "batch", "steps", "guidance", "threads")
             if (value := getattr(w, name)) != plain[name]]  # fmt: skip
    rows = "" if row.name == REFERENCE else f"--rows {shlex.quote(row.name)}"
    of = f"--contenders {shlex.quote(row.origin)}" if row.origin else ""
    return " ".join(filter(None, ["python -m bench run", of, rows, *asked]))


def finite(value: float | str | None) -> float | str | None:
    """A cell's value as an attribute; what is no number sorts last."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
