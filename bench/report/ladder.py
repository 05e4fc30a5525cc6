"""The ladder: one rung a row, the speed-up over the reference with its interval, both baselines as lines."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.contenders import REFERENCE, TEXTBOOK
from bench.measurement import Measurement, Row
from bench.report import labels
from bench.report.style import NARROW_INCHES, Plot, colour
from bench.report.table import heading, shown

MOST_RUNGS = 60
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def plot(measurement: Measurement) -> Plot:
    """The ladder of a measurement; rows that failed stand at its foot."""
    rows = [measurement.row(name) for name in measurement.rows]
    timed = sorted((r for r in rows if drawable(r)), key=lambda r: r.speedup.value)  # type: ignore[union-attr]
    left_out = len(timed) - MOST_RUNGS
    timed = timed[-MOST_RUNGS:]
    failed = [r for r in rows if r.status == "red"][:MOST_RUNGS]
    absent = [r for r in rows if r.status in ("grey", "missing")][:MOST_RUNGS]
    note = ["Speed-up of a whole run over the reference; bars: 95 % interval over fresh processes."]
    note += [f"The {left_out:,} slowest rows are left out."] * (left_out > 0)
    why: dict[str, list[str]] = {}
    for row in absent:
        why.setdefault(row.absence, []).append(row.name)
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in why.items())
    source = [f"No bar: {reasons}."] * bool(absent)
    source += ["Failed: " + "; ".join(f"{r.name} ({r.reason})" for r in failed) + "."] * bool(failed)
    return Plot(
        "speedup", message(measurement), in_words(timed, failed), lambda inches: draw(timed, failed, inches),
        note=" ".join(note), source=" ".join([*source, heading(measurement)]),
    )  # fmt: skip


def drawable(row: Row) -> bool:
    return row.speedup is not None and 0 < row.speedup.value < float("inf")


def label_speed(axes, inches: float, what: str) -> None:
    """Ticks and words of a logarithmic axis of speed-ups, whose limits are set, over `what`."""
    low, high = axes.get_xlim()
    ticks = [t for t in TICKS if low <= t <= high]
    axes.set_xticks(ticks[:: 2 if inches <= NARROW_INCHES and len(ticks) > 5 else 1])
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.minorticks_off()
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel(f"times as fast as {what} (log scale)", loc="left")


def draw(timed: list[Row], failed: list[Row], inches: float) -> Figure:
    rungs = [*failed, *timed]
    figure, axes = plt.subplots(figsize=(inches, 0.9 + 0.235 * max(3, len(rungs))), layout="constrained")
    values = [r.speedup.value for r in timed if r.speedup is not None] or [1.0]
    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.set_xlim(min(low, 1) * 0.8, max(high, 1) * 1.2)
    axes.set_ylim(-0.7, len(rungs) - 0.3)
    for at, row in enumerate(rungs):
        _rung(axes, at, row)
    axes.axvline(1, color=colour("ink"), linewidth=0.8)
    textbook = next((r for r in timed if r.name == TEXTBOOK), None)
    if textbook is not None and textbook.speedup is not None:
        axes.axvline(textbook.speedup.value, color=colour("quiet"), linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_yticks(range(len(rungs)), [labels.short(r.name) for r in rungs])
    label_speed(axes, inches, "the reference")
    _legend(axes, inches)
    return figure


def _rung(axes, at: int, row: Row) -> None:
    beside = axes.get_yaxis_transform()
    if row.speedup is None:
        axes.plot(0.01, at, marker="x", color=colour("vermilion"), transform=beside, clip_on=False)
        axes.text(1.015, at, "failed", transform=beside, va="center", fontsize=7.5, color=colour("vermilion"))
        return
    hue, marker = (colour("blue"), "o") if row.lossless else (colour("vermilion"), "s")
    if row.name == REFERENCE:
        hue = colour("ink")
    value, low, high = row.speedup.value, row.speedup.low, row.speedup.high
    axes.plot([1, value], [at, at], color=colour("line"), linewidth=1.2, zorder=1)
    if low == low:
        axes.plot([low, high], [at, at], color=hue, linewidth=4.5, alpha=0.35, solid_capstyle="butt", zorder=2)
    axes.plot(value, at, marker=marker, color=hue, markersize=4.2, zorder=3)
    text = "1 (reference)" if row.name == REFERENCE else shown(row.speedup)
    axes.text(1.015, at, text, transform=beside, va="center", fontsize=7.5)


def _legend(axes, inches: float) -> None:
    blue, orange = colour("blue"), colour("vermilion")
    handles = [plt.Line2D([], [], marker="o", linestyle="", markersize=4, color=blue, label="changes no picture"),
               plt.Line2D([], [], marker="s", linestyle="", markersize=4, color=orange, label="other pictures"),
               plt.Line2D([], [], color=colour("quiet"), linewidth=0.8, linestyle=(0, (1, 2)),
                          label="textbook’s loop")]  # fmt: skip
    columns = 1 if inches <= NARROW_INCHES else 3
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, borderpad=0,
                handletextpad=0.4)  # fmt: skip


def message(measurement: Measurement) -> str:
    """What the ladder says, in one sentence."""
    best = measurement.row(measurement.best_lossless)
    rows = [measurement.row(name) for name in measurement.rows]
    lossy = max((r for r in rows if drawable(r) and not r.lossless), key=lambda r: r.speedup.value, default=None)  # type: ignore[union-attr]
    other = "" if lossy is None else f"; with other pictures, {lossy.name} is {shown(lossy.speedup)} times as fast"
    if best.speedup is None or best.name == REFERENCE:
        return f"Nothing that changes no picture beats the reference here{other}"
    return f"{best.name} is {shown(best.speedup)} times as fast as the reference and changes no picture{other}"


def in_words(timed: list[Row], failed: list[Row]) -> str:
    """The ladder for whom it cannot be seen."""
    rungs = "; ".join(f"{r.name} {shown(r.speedup)}" for r in reversed(timed)) or "no row was timed"
    fell = f". Failed: {', '.join(r.name for r in failed)}" if failed else ""
    return f"Speed-up over the reference with its 95 % interval, fastest first: {rungs}{fell}."
