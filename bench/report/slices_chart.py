"""Every timed slice as a dot, so that no average hides a second mode, a drift or a disturbed minute."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from bench.measurement import Measurement, Row
from bench.report import labels
from bench.report.style import NARROW_INCHES, Plot, colour
from bench.report.table import heading

MOST_ROWS = 40
MOST_VECTORS = 4000  # dots; beyond that they are drawn as one picture


def plot(measurement: Measurement) -> Plot | None:
    """ln(row / reference) of every pair, a lane a process; None where nothing was timed."""
    rows = [r for r in (measurement.row(name) for name in measurement.rows) if r.pairs][:MOST_ROWS]
    if not rows:
        return None
    pairs = sum(len(r.pairs) for r in rows)
    disturbed = sum(bool(p.get("disturbed")) for r in rows for p in r.pairs)
    beside = f"{disturbed:,} ran beside other work" if measurement.watched else "what ran beside was not recorded"
    widest = max(rows, key=_spread)
    title = (f"All {pairs:,} pairs of slices: the middle half of the widest row, {widest.name}, spans "
             f"{_spread(widest):.0%}; {beside}")  # fmt: skip
    words = "; ".join(f"{r.name}: {len(r.pairs)} pairs in {len(r.log_ratios())} processes" for r in rows)
    note = "A dot: time of a step over the reference’s step beside it. A lane: a fresh process. Hollow: disturbed."
    return Plot("slices", title, f"Each pair of slices as a dot. {words}.", lambda inches: _draw(rows, inches, pairs),
                note=note, source=heading(measurement))  # fmt: skip


def _ratios(row: Row) -> list[float]:
    return [p["row_s"] / p["reference_s"] for p in row.pairs]


def _spread(row: Row) -> float:
    low, high = np.quantile(np.log(_ratios(row)), (0.25, 0.75))
    return math.expm1(high - low)


def _draw(rows: list[Row], inches: float, pairs: int) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, 0.9 + 0.3 * max(2, len(rows))), layout="constrained")
    for at, row in enumerate(reversed(rows)):
        hue = colour("blue" if row.lossless else "vermilion")
        processes = sorted({p["process"] for p in row.pairs})
        lane = {p: at + 0.36 - 0.72 * (i + 0.5) / len(processes) for i, p in enumerate(processes)}
        y = np.array([lane[p["process"]] for p in row.pairs])
        x, off = np.array(_ratios(row)), np.array([bool(p.get("disturbed")) for p in row.pairs])
        raster = pairs > MOST_VECTORS
        axes.scatter(x[~off], y[~off], s=4.5, color=hue, alpha=0.55, linewidths=0, rasterized=raster)
        axes.scatter(x[off], y[off], s=5, facecolors="none", edgecolors=hue, linewidths=0.5, rasterized=raster)
        middle = math.exp(np.mean(list(row.log_ratios().values())))
        axes.plot([middle, middle], [at - 0.38, at + 0.38], color=colour("ink"), linewidth=1)
    axes.axvline(1, color=colour("quiet"), linewidth=0.7)
    axes.set_xscale("log")
    ticks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20)
    low, high = axes.get_xlim()
    axes.set_xticks([t for t in ticks if low <= t <= high][:: 2 if inches <= NARROW_INCHES else 1])
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [labels.short(r.name) for r in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("time of a step over the reference’s (log scale)", loc="left")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    return figure
