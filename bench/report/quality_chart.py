"""Speed against quality: what each row loses, and what the same speed-up by plain fewer steps would lose."""

import math

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.measurement import Measurement, Row
from bench.quality import charts, divergence, plan, tables
from bench.quality.equivalence import PASSES, Loss
from bench.quality.record import Quality
from bench.quality.same_noise import FACTOR, Divergence
from bench.report import frontier, labels
from bench.report.answer import judged, verdict
from bench.report.ladder import TICKS, drawable
from bench.report.sources import Beside
from bench.report.style import NARROW_INCHES, Plot, colour
from bench.report.table import heading, shown


def losses_of(row: Row, quality: Quality) -> dict[str, Loss]:
    """What the row's pictures lose against the reference's; empty where none were judged."""
    drawn = plan.rows(quality.device).get(row.name)
    return quality.judged[drawn.point].figures.losses if drawn is not None and drawn.point in quality.judged else {}


def kernel_lost(row: Row, quality: Quality) -> Loss | None:
    """Kernel distance that the row's pictures lose against the reference's."""
    return losses_of(row, quality).get("kernel")


def against_speed(measurement: Measurement, beside: Beside) -> Plot | None:
    """Speed-up against kernel distance lost; None where no pictures were judged."""
    if not judged(beside, measurement):
        return None
    quality = beside.quality
    assert quality is not None
    rows = [r for r in (measurement.row(n) for n in measurement.rows) if drawable(r) and not r.lossless]
    points = [(row, loss) for row in rows if (loss := kernel_lost(row, quality)) is not None]
    if not points:
        return None
    sound = [row for row, _ in points if verdict(row, beside)[0] in PASSES]
    best = max(sound, key=lambda r: r.speedup.value, default=None)  # type: ignore[union-attr]
    title = (
        "No row that draws other pictures is shown to stay within its quality budget"
        if best is None
        else (f"{best.name} is the fastest row shown to stay within its quality budget: {shown(best.speedup)} times")
    )
    words = "; ".join(f"{row.name} {shown(row.speedup)} times as fast, loses {loss.value:.2f}" for row, loss in points)
    note = ("Kernel distance to real pictures lost against the reference’s, lower is better; bars 95 %. Grey: the "
            "reference with plainly fewer steps, the control.")  # fmt: skip
    return Plot("speed-quality", title, f"Speed-up against kernel distance lost: {words}.",
                lambda inches: _draw(points, measurement, quality, beside, inches), note=note,
                source=tables.heading(quality))  # fmt: skip


def _draw(points: list[tuple[Row, Loss]], measurement: Measurement, quality: Quality, beside: Beside,
          inches: float) -> Figure:  # fmt: skip
    figure, axes = plt.subplots(figsize=(inches, min(4.6, 0.55 * inches + 1.4)), layout="constrained")
    control = [(measurement.workload.steps / s, quality.judged[f"ancestral-{s}"].figures.losses["kernel"])
               for s in plan.STEPS if f"ancestral-{s}" in quality.judged]  # fmt: skip
    _bars(axes, control, "quiet", marker="", line="--")
    for x, loss in control[1:]:
        axes.annotate(f"{measurement.workload.steps / x:.0f} steps", (x, loss.interval[1]), xytext=(0, 2), ha="center",
                      textcoords="offset points", fontsize=6.5, color=colour("quiet"))  # fmt: skip
    names: list[tuple[float, float, str, str]] = []
    for row, loss in points:
        hue = "green" if verdict(row, beside)[0] in PASSES else "vermilion"
        assert row.speedup is not None
        _bars(axes, [(row.speedup.value, loss)], hue, marker="D" if hue == "green" else "s", line="")
        names.append((row.speedup.value, loss.value, row.name, colour(hue)))
    axes.axhline(0, color=colour("line"), linewidth=0.8)
    axes.set_xscale("log")
    frontier.draw(axes, [(x, y) for x, y, *_ in names])
    xs = [x for x, *_ in names] + [x for x, _ in control]
    axes.set_xlim(min(*xs, 1) * 0.8, max(xs) * 1.6)
    axes.set_xticks([t for t in TICKS if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]])
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.set_yscale("symlog", linthresh=0.3)
    axes.set_yticks([t for t in (-0.2, 0, 0.2, 0.5, 1, 2, 5, 10, 20) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid()
    axes.set_xlabel("times as fast as the reference (log scale)", loc="left")
    axes.set_ylabel("kernel distance lost (log from 0.3 on)")
    green, orange = colour("green"), colour("vermilion")
    handles = [plt.Line2D([], [], marker="D", linestyle="", markersize=4, color=green, label="within its budget"),
               plt.Line2D([], [], marker="s", linestyle="", markersize=4, color=orange, label="not shown to be"),
               plt.Line2D([], [], linestyle="--", color=colour("quiet"), label="plainly fewer steps")]  # fmt: skip
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0,
                ncols=1 if inches <= NARROW_INCHES else 3)  # fmt: skip
    labels.beside(axes, names, size=6.5)
    return figure


def _bars(axes, points: list[tuple[float, Loss]], hue: str, marker: str, line: str) -> None:
    if not points:
        return
    x, middle = [p[0] for p in points], [p[1].value for p in points]
    spread = [[p[1].value - p[1].interval[0] for p in points], [p[1].interval[1] - p[1].value for p in points]]
    axes.errorbar(x, middle, spread, marker=marker, linestyle=line, color=colour(hue), markersize=4, linewidth=1,
                  elinewidth=0.9, capsize=2)  # fmt: skip


def steps(quality: Quality | None) -> Plot | None:
    """Steps against quality, by sampler."""
    if quality is None or not all(name in quality.judged for name in plan.curve()) or quality.floor is None:
        return None
    lost = {s: quality.judged[f"ancestral-{s}"].figures.losses["kernel"] for s in plan.STEPS[1:]}
    seen = next((s for s in lost if lost[s].interval[0] > 0), None)
    fine = [s for s in lost if seen is None or s > seen]
    title = (
        f"Down to {fine[-1]} ancestral steps no loss of kernel distance is seen" if fine else "Every cut costs quality"
    )
    title += "" if seen is None else f"; {seen} lose {tables.shown(lost[seen])}"
    n = charts.of({quality.judged[name].figures.pictures for name in plan.curve()})
    words = "; ".join(f"{name} {quality.judged[name].figures.kernel.value:.2f}" for name in plan.curve())
    return Plot("steps-quality", f"{title} ({n} pictures a point)", f"Kernel distance to real pictures: {words}.",
                lambda inches: charts.draw_steps(quality, inches), source=tables.heading(quality),
                bends=False)  # fmt: skip


def guidance(quality: Quality | None) -> Plot | None:
    """Label accuracy, diversity and distance against the guidance scale."""
    points = {s: plan.guidance_point(s) for s in plan.GUIDANCE}
    if quality is None or quality.floor is None or not all(point in quality.judged for point in points.values()):
        return None
    best, _ = tables.best_scale(quality)
    those = {s: quality.judged[point].figures for s, point in points.items()}
    title = f"Guidance trades diversity for labels: a scale of {best:g} is nearest to real pictures"
    words = "; ".join(f"scale {s:g}: accuracy {f.accuracy.value:.0%}, diversity {f.diversity:.2f}, kernel distance "
                      f"{f.kernel.value:.2f}" for s, f in those.items())  # fmt: skip
    return Plot("guidance-quality", title, words + ".", lambda inches: charts.draw_guidance(quality, inches),
                source=tables.heading(quality), bends=False)  # fmt: skip


def by_timestep(measurement: Measurement, quality: Quality | None) -> Plot | None:
    """How far each row leaves a float64 run, timestep by timestep: of the quality run, else of this one's look."""
    found: dict[str, Divergence] = dict(quality.divergence) if quality is not None else {}
    if not found:
        seen = {name: measurement.row(name).divergence for name in measurement.rows}
        found = {name: one for name, one in seen.items() if one is not None and one.error}
    found = {name: one for name, one in found.items() if one.error}
    if not found:
        return None
    faults = [name for name, one in found.items() if one.fault]
    plain = {name: one.error[-1] for name, one in found.items() if one.factor == FACTOR and not one.fault}
    worst = max(plain.values(), default=math.nan)
    title = (f"{', '.join(faults)} leave their bound" if faults else
             f"In float32 no row ends further than {worst:.0e} from a float64 run on the same noise")  # fmt: skip
    words = "; ".join(f"{name} ends {one.error[-1]:.1e} off, {one.nearest:.0%} of its bound"
                      for name, one in found.items())  # fmt: skip
    source = tables.heading(quality) if quality is not None and quality.divergence else heading(measurement)
    return Plot("divergence", title, f"RMS difference from float64, pictures in [-1, 1]: {words}.",
                lambda inches: divergence.draw(found, inches), source=source)  # fmt: skip
