"""update.png: achieved bandwidth against size with its roof, and what that saves alone, in a step and in an image."""

from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench import png_file
from bench.contenders import REFERENCE
from bench.update.record import Point, UpdateCost

# Okabe & Ito (2008): safe for colour blindness. Ours in blues, others' in warm colours
STYLES = {
    "copy": ("black", "-", "o"),
    "eager": ("#E69F00", "-", "s"),
    "eager + randn": ("#E69F00", "--", "s"),
    "compiled": ("#D55E00", "-", "^"),
    "compiled + randn": ("#D55E00", "--", "^"),
    "diffusers": ("#CC79A7", "--", "v"),
    "noise": ("#0072B2", "-", "D"),
    "drawn": ("#0072B2", "--", "D"),
    "memory": ("#F0E442", "--", "D"),
    "no noise": ("#56B4E9", "-", "D"),
    "fed": ("#009E73", "--", "P"),
}
EAGER = "eager + randn"  # what the reference's step does


def png(cost: UpdateCost) -> bytes:
    """The figure as a PNG file's bytes; the same input gives the same picture."""
    figure = draw(cost, 14)
    figure.suptitle(f"{message(cost)}\n", x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(heading(cost), fontsize=7, color="0.3", x=0.01, ha="left")
    made = png_file.of(figure, dpi=120)
    plt.close(figure)
    return made


def draw(cost: UpdateCost, inches: float) -> Figure:
    """Bandwidth; and, beside it or below where that is too narrow, what is saved alone, in a step and in an image."""
    if inches >= 12:
        figure, parts = plt.subplots(1, 2, figsize=(inches, 5.6), width_ratios=(3, 2), layout="constrained")
    else:
        figure, parts = plt.subplots(2, 1, figsize=(inches, 8.4), height_ratios=(3, 2), layout="constrained")
    _bandwidth(parts[0], cost)
    _savings(parts[1], cost)
    return figure


def heading(cost: UpdateCost) -> str:
    e = cost.environment
    where = e.get("gpu", f"one thread of {e['cpu']} ({e['cpu_capability']}, {e['cpus']} CPUs)")
    dirty = " with uncommitted changes" if e["dirty"] else ""
    stopped = "; INTERRUPTED, some sizes are missing" if cost.interrupted else ""
    step = "" if cost.step is None else f"; the step: commit {cost.step.environment['commit']}, {cost.step.started}"
    return f"{where}, PyTorch {e['torch']}, commit {e['commit']}{dirty}, {cost.started}{stopped}{step}"


def _style(way: str) -> tuple[str, str, str]:
    if way in STYLES:
        return STYLES[way]
    return STYLES[next((part for part in ("fed", "memory", "drawn", "no noise") if part in way), "noise")]


def _bandwidth(axes, cost: UpdateCost) -> None:
    for way in cost.ways:
        points = [p for size in cost.sizes_mib if (p := cost.at(size, way))]
        if not points:
            continue
        colour, line, marker = _style(way)
        middles = [median(p.gb_per_s) for p in points]
        spread: list[list[float]] = [[], []]
        for point, middle in zip(points, middles, strict=True):
            slow, fast = (point.gb_per_s_at(seconds) for seconds in reversed(point.spread))
            spread[0].append(max(0.0, middle - slow))
            spread[1].append(max(0.0, fast - middle))
        axes.errorbar([p.size_mib for p in points], middles, spread, label=way, color=colour, linestyle=line,
                      marker=marker, markersize=4, linewidth=2.2 if way == "copy" else 1.3, capsize=2)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(cost.sizes_mib, [f"{s:.1g}" if s < 1 else f"{s:.0f}" for s in cost.sizes_mib])
    axes.minorticks_off()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
             if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]  # fmt: skip
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xlabel("size of the state, MiB of float32 (log scale)")
    axes.set_ylabel("GB/s of bytes that cannot be avoided (log scale)")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.set_title(
        "Bandwidth of one update, inputs not in any cache (median, 80 % of the rounds)", fontsize=9, loc="left"
    )
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def _savings(axes, cost: UpdateCost) -> None:
    axes.axis("off")
    axes.set_title("What the fused update saves: alone, in a step, in an image", fontsize=9, loc="left")
    lines = savings(cost)
    if not lines:
        axes.text(0, 0.9, "not measured", transform=axes.transAxes, fontsize=9)
        return
    for i, (label, before, after, note) in enumerate(lines):
        box = axes.inset_axes((0.02, 0.72 - 0.335 * i, 0.6, 0.2))
        box.barh([1, 0], [before[0], after[0]], color=["#E69F00", "#0072B2"], height=0.7)
        box.set_yticks([1, 0], ["eager", "fused"], fontsize=8)
        box.set_xlim(0, 1.05 * max(before[0], after[0]))
        box.tick_params(axis="x", labelsize=7)
        box.spines[["top", "right"]].set_visible(False)
        box.set_title(f"{label}, {before[1]}", fontsize=8, loc="left")
        axes.text(0.66, 0.82 - 0.335 * i, note, transform=axes.transAxes, fontsize=8, va="center")


def fused_way(cost: UpdateCost) -> str:
    return "fused, drawn" if is_cuda(cost.device) else "native, drawn"


def fused_row(device: str) -> str:
    """The row whose step differs from the reference's in the update alone."""
    return "fused-drawn" if is_cuda(device) else "native-update"


def is_cuda(device: str) -> bool:
    return device.startswith("cuda")


def savings(cost: UpdateCost) -> list[tuple[str, tuple[float, str], tuple[float, str], str]]:
    """(what, (eager, unit), (fused, unit), in words) for the update alone, a step and an image; what was measured."""
    eager, fused = cost.inside(EAGER), cost.inside(fused_way(cost))
    if eager is None or fused is None:
        return []
    saved_us = (eager.median_s - fused.median_s) * 1e6
    lines = [(
        "the update alone", (eager.median_s * 1e6, "µs"), (fused.median_s * 1e6, "µs"),
        f"{eager.median_s / fused.median_s:.1f}×\n{saved_us:.0f} µs saved",
    )]  # fmt: skip
    if cost.step is None:
        return lines
    row, reference = cost.step.row(fused_row(cost.device)), cost.step.row(REFERENCE)
    if row.speedup is None or reference.step_ms is None:
        return lines
    ratio, step_ms = row.speedup, reference.step_ms
    bound = step_ms / max(step_ms - saved_us / 1e3, 1e-9)
    measured = f"{ratio.value:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}]"
    lines.append((
        "a step, network included", (step_ms, "ms"), (step_ms / ratio.value, "ms"),
        f"{measured} measured\n{bound:.3f}× expected of {saved_us:.0f} µs\n{resolved(ratio)}",
    ))  # fmt: skip
    batch, steps = cost.step.workload.batch, reference.steps
    image_s = step_ms / 1e3 * steps / batch
    low, high = (image_s * 1e3 * (1 - 1 / r) for r in (ratio.low, ratio.high))
    lines.append((
        f"an image ({steps:,} steps, batch {batch})", (image_s, "s"), (image_s / ratio.value, "s"),
        f"{low:,.0f} … {high:,.0f} ms saved, measured\n{saved_us * 1e-3 * steps / batch:,.1f} ms expected",
    ))  # fmt: skip
    return lines


def resolved(ratio) -> str:
    """Whether the step's ratio differs from 1 beyond its interval."""
    if ratio.low != ratio.low:
        return "too few processes to tell"
    return "a difference" if ratio.low > 1 or ratio.high < 1 else "no difference seen"


def message(cost: UpdateCost) -> str:
    """The figure's one sentence."""
    eager, fused = cost.inside(EAGER), cost.inside(fused_way(cost))
    if eager is None or fused is None:
        return "Bandwidth of one posterior update"
    alone = f"Fused, the update is {eager.median_s / fused.median_s:.1f}× as fast"
    step_ms = None if cost.step is None else cost.step.row(REFERENCE).step_ms
    if step_ms is None:
        return alone
    return f"{alone}, which saves {(eager.median_s - fused.median_s) * 1e3 / step_ms:.2%} of a step"


def table(cost: UpdateCost) -> str:
    """GB/s and share of the copy, a line a size: what is printed."""
    ways = [w for w in cost.ways if any(cost.at(s, w) for s in cost.sizes_mib)]
    lines = ["GB/s of unavoidable bytes (share of the copy's in the same rounds)",
             " | ".join(["state MiB", *ways]), " | ".join(["---:"] * (1 + len(ways)))]  # fmt: skip
    for size in cost.sizes_mib:
        cells = [_cell(cost, cost.at(size, way)) for way in ways]
        lines.append(" | ".join([f"{size:.1f}", *cells]))
    lines = [lines[0], "", *(f"| {line} |" for line in lines[1:]), ""]
    absent = dict.fromkeys((p.way, p.reason) for p in (*cost.sweep, *cost.in_the_loop) if p.reason)
    lines += [f"not timed: {way} ({reason})" for way, reason in absent]
    for what, before, after, note in savings(cost):
        lines.append(f"{what}: {before[0]:.4g} → {after[0]:.4g} {after[1]}; {'; '.join(note.splitlines())}")
    return "\n".join(lines)


def _cell(cost: UpdateCost, point: Point | None) -> str:
    if point is None:
        return "–"
    share = cost.share_of_copy(point)
    return f"{median(point.gb_per_s):.4g}" + ("" if share is None else f" ({share:.0%})")
