"""profile.png: where a step's time goes in each row, by kind of operation."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.cost import Cost
from bench.measurement import Measurement
from bench.report.table import heading

KINDS = {  # in the order of the bars; Okabe & Ito (2008) and greys
    "convolution": "#0072B2", "attention": "#56B4E9", "matrix product": "#009E73", "normalisation": "#F0E442",
    "elementwise": "#E69F00", "compiled kernels": "#D55E00", "layout": "#CC79A7", "update": "#000000",
    "noise": "#666666", "Python": "#BBBBBB", "idle": "#EEEEEE",
}  # fmt: skip


def png(measurement: Measurement) -> bytes | None:
    """The chart as a PNG file's bytes, or None where nothing was profiled."""
    costs = [c for c in (Cost(measurement.row(name)) for name in measurement.rows) if c.kinds_ms]
    if not costs:
        return None
    figure, axes = plt.subplots(figsize=(11, 1.8 + 0.34 * len(costs)), layout="constrained")
    labelled = set()
    for height, cost in enumerate(reversed(costs)):
        left = 0.0
        for kind, colour in KINDS.items():
            ms = cost.kinds_ms.get(kind, 0.0)
            if ms <= 0:
                continue
            axes.barh(height, ms, left=left, height=0.7, color=colour, edgecolor="white", linewidth=0.3,
                      label=None if kind in labelled else kind)  # fmt: skip
            labelled.add(kind)
            left += ms
        calls = f"{cost.launches_a_step:.3g} launches" if "gpu" in measurement.environment else ""
        axes.annotate(calls, (left, height), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(costs)), [c.row.name for c in reversed(costs)], fontsize=8)
    axes.set_xlabel("ms a step under the profiler, which makes small operations dearer than they are")
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.suptitle("Where a step's time goes", x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(heading(measurement).replace("$", "\\$"), loc="left", fontsize=6.5, color="0.3")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return out.getvalue()
