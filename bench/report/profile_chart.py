"""Where a step's time goes in each row, by kind of operation."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.cost import Cost
from bench.measurement import Measurement
from bench.report import labels
from bench.report.style import NARROW_INCHES, Plot, colour
from bench.report.table import heading

KINDS = {  # in the order of the bars
    "convolution": "blue", "attention": "sky", "matrix product": "green", "normalisation": "yellow",
    "elementwise": "orange", "compiled kernels": "vermilion", "layout": "purple", "update": "ink", "noise": "quiet",
    "Python": "line", "idle": "wash",
}  # fmt: skip
MOST_ROWS = 60


def plot(measurement: Measurement) -> Plot | None:
    """The chart; None where nothing was profiled."""
    costs = [c for c in (Cost(measurement.row(name)) for name in measurement.rows) if c.kinds_ms][:MOST_ROWS]
    if not costs:
        return None
    first = next((c for c in costs if c.row.name == "reference"), costs[0])
    total, share = sum(first.kinds_ms.values()), first.update_share
    kind, ms = max(first.kinds_ms.items(), key=lambda one: one[1])
    title = f"{ms / total:.0%} of the {first.row.name}’s step is {kind}" + (
        "" if share is None else f"; the update is {share:.1%}, so fusing it can gain at most {1 / (1 - share):.3f}×"
    )
    words = "; ".join(f"{c.row.name}: " + ", ".join(f"{k} {v:.2f} ms" for k, v in c.kinds_ms.items() if v >= 0.005)
                      for c in costs)  # fmt: skip
    return Plot("profile", title, f"Milliseconds a step by kind of operation. {words}.",
                lambda inches: _draw(costs, inches), note="The profiler makes small operations dearer than they are.",
                source=heading(measurement))  # fmt: skip


def _draw(costs: list[Cost], inches: float) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, 1.1 + 0.23 * max(3, len(costs))), layout="constrained")
    labelled = set()
    for at, cost in enumerate(reversed(costs)):
        left = 0.0
        for kind, hue in KINDS.items():
            ms = cost.kinds_ms.get(kind, 0.0)
            if ms <= 0:
                continue
            axes.barh(at, ms, left=left, height=0.72, color=colour(hue), edgecolor=colour("paper"), linewidth=0.4,
                      label=None if kind in labelled else kind)  # fmt: skip
            labelled.add(kind)
            left += ms
        if "gpu" in cost.row.measurement.environment:
            axes.annotate(f"{cost.launches_a_step:.3g} launches", (left, at), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    axes.set_yticks(range(len(costs)), [labels.short(c.row.name) for c in reversed(costs)])
    axes.set_xlabel("ms a step under the profiler", loc="left")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if inches <= NARROW_INCHES else 5, borderpad=0)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    return figure
