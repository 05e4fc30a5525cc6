"""The charts of quality: steps against quality, label accuracy against diversity, divergence, and sample grids."""

from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from bench import png_file
from bench.contenders import CONTENDERS
from bench.quality import plan, tables
from bench.quality.drawing import Drawn, Point
from bench.quality.judging import Seen, real_images, see
from bench.quality.record import Quality
from sampler.data import CLASSES

COLOURS = {"ancestral": "#0072B2", "strided": "#D55E00", "ddim": "#009E73"}  # Okabe & Ito (2008)
NAMES = {"ancestral": "ancestral (DDIM η = 1)", "strided": "strided", "ddim": "DDIM η = 0"}
GREY = "0.45"
GRID_STEPS = (1000, 250, 50, 25, 10)


def steps(found: Quality) -> bytes:
    """`draw_steps` as a PNG file's bytes."""
    n = of({found.judged[point].figures.pictures for point in plan.curve()})
    return _png(
        draw_steps(found, 13), f"What fewer steps cost: {n} pictures a point, guidance {plan.SCALE:g}; bars 95 %"
    )


def draw_steps(found: Quality, inches: float) -> Figure:
    """Kernel distance, label accuracy and diversity against the number of steps, one line a sampler."""
    figure, axes = plt.subplots(1, 3, figsize=(inches, 4.4), layout="constrained")
    assert found.floor is not None
    for shift, name in zip((0.96, 1.0, 1.04), plan.SAMPLERS, strict=True):
        at = np.array(plan.STEPS) * shift  # so that bars do not hide each other
        those = [found.judged[f"{name}-{s}"].figures for s in plan.STEPS]
        look = {"color": COLOURS[name], "marker": "o", "markersize": 4, "capsize": 2, "label": NAMES[name]}
        _bars(axes[0], at, [(f.kernel.value, *f.kernel.interval) for f in those], look)
        _bars(axes[1], at, [(f.accuracy.value, *f.accuracy.interval) for f in those], look)
        axes[2].plot(at, [f.diversity for f in those], **{k: v for k, v in look.items() if k != "capsize"})
    floor = found.floor
    for axis, value in zip(axes, (floor.kernel.value, floor.accuracy.value, floor.diversity), strict=True):
        axis.axhline(value, color=GREY, linestyle="--", linewidth=1, label="real test images")
        axis.set_xscale("log")
        axis.set_xticks(plan.STEPS, [f"{s:,}" for s in plan.STEPS], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel("steps")
        axis.grid(color="0.92")
    axes[0].set_title("kernel distance to real images (lower is better)", fontsize=10)
    axes[1].set_title("share recognised as the label asked for", fontsize=10)
    axes[2].set_title("diversity: mean distance within a label", fontsize=10)
    axes[2].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.94))  # below the line of the real images
    return figure


def of(counts: set[int]) -> str:
    """How many, in words, where it is not the same everywhere."""
    return " or ".join(map(str, sorted(counts)))


def _bars(axis, at, values, look) -> None:
    middle, low, high = (np.array(v) for v in zip(*values, strict=True))
    axis.errorbar(at, middle, yerr=[middle - low, high - middle], **look)


def guidance(found: Quality) -> bytes:
    """`draw_guidance` as a PNG file's bytes."""
    n = of({found.judged[plan.guidance_point(s)].figures.pictures for s in plan.GUIDANCE})
    title = f"Guidance trades diversity for labels: {plan.GUIDANCE_STEPS} ancestral steps, {n} pictures a scale"
    return _png(draw_guidance(found, 11), f"{title}; bars 95 %")


def draw_guidance(found: Quality, inches: float) -> Figure:
    """Label accuracy against diversity as the scale grows, and kernel distance against the scale."""
    figure, (plane, line) = plt.subplots(1, 2, figsize=(inches, 4.4), layout="constrained")
    those = [found.judged[plan.guidance_point(s)].figures for s in plan.GUIDANCE]
    look = {"color": COLOURS["ancestral"], "marker": "o", "markersize": 4, "capsize": 2}
    _bars(plane, [f.diversity for f in those], [(f.accuracy.value, *f.accuracy.interval) for f in those], look)
    for scale, f in zip(plan.GUIDANCE, those, strict=True):
        aside = (7, 3) if scale < 4 else (-13, -12) if scale == 4 else (6, -13)
        plane.annotate(f"{scale:g}", (f.diversity, f.accuracy.value), xytext=aside, textcoords="offset points",
                       fontsize=8)  # fmt: skip
    assert found.floor is not None
    plane.plot(
        found.floor.diversity, found.floor.accuracy.value, "*", color=GREY, markersize=12, label="real test images"
    )
    plane.set_xlabel("diversity: mean distance within a label")
    plane.set_ylabel("share recognised as the label asked for")
    plane.legend(fontsize=8, loc="lower left")
    _bars(line, plan.GUIDANCE, [(f.kernel.value, *f.kernel.interval) for f in those], look)
    best, _ = tables.best_scale(found)
    line.axvline(best, color=COLOURS["ddim"], linewidth=1, label=f"best: {best:g}")
    line.axhline(found.floor.kernel.value, color=GREY, linestyle="--", linewidth=1, label="real test images")
    line.set_xlabel("guidance scale")
    line.set_ylabel("kernel distance to real images")
    line.legend(fontsize=8)
    for axis in (plane, line):
        axis.grid(color="0.92")
    return figure


def grids(found: Quality, drawn: Callable[[Point], Drawn | None]) -> dict[str, bytes | None]:
    """Sample grids beside the curves: the same seed and label down each column."""
    by_steps = {f"{name}, {s:,} steps": f"{name}-{s}" for name in plan.SAMPLERS for s in GRID_STEPS}
    by_scale = {f"guidance {s:g}": plan.guidance_point(s) for s in plan.GUIDANCE}
    by_row: dict[str, str] = {}
    for row, shown in plan.rows(found.device).items():
        same = next((names for names, point in by_row.items() if point == shown.point), None)
        by_row.pop(same or "", None)
        by_row[f"{same},\n{row}" if same else row] = shown.point
    return {
        "samples_steps.png": _grid(found, by_steps, drawn, "By sampler and steps"),
        "samples_guidance.png": _grid(found, by_scale, drawn, f"By guidance scale, {plan.GUIDANCE_STEPS} steps"),
        "samples_rows.png": _grid(found, by_row, drawn, "What the rows draw"),
    }


def strangest(found: Quality, drawn: Callable[[Point, int], Drawn | None]) -> bytes | None:
    """Of each row that draws other pictures the ten strangest, beside the reference's and real ones; None where no
    pictures are at hand. drawn: so many of a point's pictures."""
    rows: dict[str, str] = {}
    for row, of_row in plan.rows(found.device).items():
        if of_row.point in found.judged and (row == "reference" or CONTENDERS[row].budget is not None):
            rows[of_row.point] = f"{rows[of_row.point]},\n{row}" if of_row.point in rows else row
    known, lines = plan.points(found.device), dict[str, Seen]()
    for name, label in rows.items():
        if (pictures := drawn(known[name], found.judged[name].figures.pictures)) is not None:
            lines[f"{label}, {len(pictures.labels)}"] = see(pictures.images, pictures.labels)
    if not lines:
        return None
    images, labels = real_images()
    lines = {f"real test images, {len(labels)}": see(images, labels), **lines}
    figure, axes = _cells(len(lines))
    for line, (label, seen) in zip(axes, lines.items(), strict=True):
        assert seen.images is not None
        for cell, at in zip(line, seen.set.strange.topk(10).indices, strict=True):
            cell.imshow(seen.images[at, 0].numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            cell.set_title(CLASSES[int(seen.set.labels[at])], fontsize=6, pad=1.5)
        line[0].text(-0.15, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    _margins(figure, 0.26)
    return _png(figure, "The ten strangest pictures of each row, of as many as were judged")


def _cells(rows: int):
    figure, axes = plt.subplots(rows, 10, figsize=(9.6, 0.75 * rows + 0.6), squeeze=False)
    for cell in axes.flat:
        cell.axis("off")
    return figure, axes


def _margins(figure, between: float) -> None:
    figure.subplots_adjust(left=0.19, right=0.99, bottom=0.01, top=1 - (0.4 + between / 2) / figure.get_figheight(),
                           wspace=0.05, hspace=between)  # fmt: skip


def _grid(found: Quality, points: dict[str, str], drawn, title: str) -> bytes | None:
    known = plan.points(found.device)
    rows = [(label, pictures) for label, name in points.items() if (pictures := drawn(known[name])) is not None]
    if not rows:
        return None
    figure, axes = _cells(len(rows))
    for line, (label, pictures) in zip(axes, rows, strict=True):
        for cell, image in zip(line, pictures.images, strict=False):
            cell.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        line[0].text(-0.15, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    _margins(figure, 0.05)
    return _png(figure, f"{title}: the same starting noise and label down each column")


def _png(figure, title: str) -> bytes:
    # where the layout is constrained it makes room for the title, unless told where that goes
    where = {} if figure.get_layout_engine() else {"y": 0.995}
    figure.suptitle(title, fontsize=11, fontweight="bold", **where)
    made = png_file.of(figure, dpi=120)
    plt.close(figure)
    return made
