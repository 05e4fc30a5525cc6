"""memory.png: each row's peak in its parts, phase by phase, and live bytes over a few steps."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.cost import Cost
from bench.measurement import Measurement
from bench.memory import PARTS, PHASES
from bench.report.table import heading

COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#BBBBBB")  # Okabe & Ito (2008): safe for colour blindness
MOST_LINES = 4
TELLING = ("reference", "batched-cfg", "compiled", "all-lossless")


def png(measurement: Measurement) -> bytes | None:
    """The chart as a PNG file's bytes, or None where no memory was metered."""
    costs = [c for c in (Cost(measurement.row(name)) for name in measurement.rows) if c.phase("steady")]
    if not costs:
        return None
    height = 1.6 + 0.16 * len(costs) * (len(PHASES) + 1)
    figure, (stack, line) = plt.subplots(
        2, 1, figsize=(11, height + 3.2), height_ratios=(height, 3.0), layout="constrained"
    )
    _stack(stack, costs)
    _timeline(line, measurement)
    figure.suptitle("Memory of each row, alone in its process", x=0.01, ha="left", fontsize=12, fontweight="bold")
    stack.set_title(heading(measurement).replace("$", "\\$"), loc="left", fontsize=6.5, color="0.3")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return out.getvalue()


def _stack(axes, costs: list[Cost]) -> None:
    """One group of bars a row, one bar a phase, stacked by part."""
    ticks = {}
    for i, cost in enumerate(reversed(costs)):
        top = i * (len(PHASES) + 1)
        ticks[top + 1] = cost.row.name
        for j, phase in enumerate(reversed(PHASES)):
            event = cost.phase(phase)
            left = 0.0
            for part, colour in zip(PARTS, COLOURS, strict=True):
                size = 0.0 if event is None else event["parts"][part] / 2**20
                axes.barh(top + j, size, left=left, height=0.85, color=colour, label=part if not i + j else None)
                left += size
            axes.annotate(phase, (left, top + j), xytext=(3, 0), textcoords="offset points", va="center", fontsize=5)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.set_ylim(-1, len(costs) * (len(PHASES) + 1) - 1)
    axes.set_xlabel("MiB at the peak of each phase")
    axes.margins(x=0.12)
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _timeline(axes, measurement: Measurement) -> None:
    """Live bytes from allocation to allocation, over a few steps of some rows."""
    events = {e["row"]: e for e in measurement.of("timeline") if e["points"]}
    shown = [events[name] for name in (*TELLING, *measurement.rows) if name in events]
    shown = list({e["row"]: e for e in shown}.values())[:MOST_LINES]
    for event in shown:
        times, live = zip(*event["points"], strict=True)
        axes.step([t * 1e3 for t in times], [b / 2**20 for b in live], where="post", linewidth=0.8, label=event["row"])
    axes.set_xlabel(f"ms, over {shown[0]['steps']} steps with the meter on" if shown else "nothing was allocated")
    axes.set_ylabel("MiB of live tensors")
    axes.set_ylim(bottom=0)
    if shown:
        axes.legend(fontsize=7, ncols=3)
