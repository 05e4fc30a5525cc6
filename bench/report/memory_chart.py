"""Memory: speed against it, each row's peak in its parts phase by phase, and live bytes over a few steps."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.cost import Cost
from bench.measurement import Measurement
from bench.memory import PARTS, PHASES
from bench.report import frontier, labels
from bench.report.ladder import TICKS, drawable
from bench.report.style import NARROW_INCHES, Plot, colour
from bench.report.table import heading

HUES = ("blue", "sky", "orange", "line")  # of the parts
LINES = ("ink", "blue", "vermilion", "green")
TELLING = ("reference", "batched-cfg", "compiled", "all-lossless")  # whose timelines are drawn first
MOST_ROWS = 40


def metered(measurement: Measurement) -> list[Cost]:
    """The rows whose steady memory is known."""
    return [c for c in (Cost(measurement.row(name)) for name in measurement.rows) if c.phase("steady")][:MOST_ROWS]


def steady_mib(cost: Cost) -> float:
    """Peak of live tensors in steady state."""
    return (cost.phase("steady") or {})["live_peak"] / 2**20


def against_speed(measurement: Measurement) -> Plot | None:
    """Speed-up against memory; None where no memory was metered."""
    costs = [c for c in metered(measurement) if drawable(c.row)]
    if len(costs) < 2:
        return None
    light, fast = min(costs, key=steady_mib), max(costs, key=lambda c: c.row.speedup.value)  # type: ignore[union-attr]
    times = steady_mib(fast) / steady_mib(light)
    title = (f"The fastest row, {fast.row.name}, holds {steady_mib(fast):.1f} MiB at its peak, {times:.0f} times what "
             f"{light.row.name} does" if times >= 1.5 else "Speed costs no memory worth mentioning here")  # fmt: skip
    words = "; ".join(f"{c.row.name} {c.row.speedup.value:.3g} times, {steady_mib(c):.1f} MiB" for c in costs)  # type: ignore[union-attr]
    return Plot("speed-memory", title, f"Speed-up over the reference against peak of live tensors: {words}.",
                lambda inches: _against_speed(costs, inches), source=heading(measurement))  # fmt: skip


def _against_speed(costs: list[Cost], inches: float) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, min(4.2, 0.62 * inches + 0.9)), layout="constrained")
    points = []
    for cost in costs:
        assert cost.row.speedup is not None
        x, y = cost.row.speedup.value, steady_mib(cost)
        hue, marker = (colour("blue"), "o") if cost.row.lossless else (colour("vermilion"), "s")
        axes.plot(x, y, marker=marker, color=hue, markersize=4.5)
        points.append((x, y, cost.row.name, hue))
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    axes.set(xscale="log", yscale="log", xlim=(min(xs) * 0.75, max(xs) * 1.5), ylim=(min(ys) * 0.7, max(ys) * 1.5))
    axes.set_xticks([t for t in TICKS if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]])
    axes.set_yticks([t for t in (*TICKS, 2000, 5000, 10000) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]])
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid()
    axes.set_xlabel("times as fast as the reference (log scale)", loc="left")
    axes.set_ylabel("MiB of live tensors at the steady peak (log scale)")
    frontier.draw(axes, [(x, y) for x, y, *_ in points])
    labels.beside(axes, points, size=6.5 if inches <= NARROW_INCHES else 7)
    return figure


def parts(measurement: Measurement) -> Plot | None:
    """Each row's peak by phase and part; None where no memory was metered."""
    costs = metered(measurement)
    if not costs:
        return None
    most = max(costs, key=lambda c: (c.phase("first call") or {}).get("live_peak", 0))
    first, steady = ((most.phase(p) or {}).get("live_peak", 0) / 2**20 for p in ("first call", "steady"))
    title = (f"The largest peak of live tensors that of {most.row.name}: {first:.1f} MiB in its first call, "
             f"{steady:.1f} afterwards")  # fmt: skip
    words = "; ".join(f"{c.row.name}: {_in_words((c.phase('steady') or {})['parts'])}" for c in costs)
    return Plot("memory", title, f"MiB by part in steady state. {words}.", lambda inches: _parts(costs, inches),
                note="Of each row, from above: weights loaded, first call, steady state.",
                source=heading(measurement))  # fmt: skip


def _in_words(sizes: dict[str, int]) -> str:
    return ", ".join(f"{part} {size / 2**20:.1f}" for part, size in sizes.items())


def _parts(costs: list[Cost], inches: float) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, 0.9 + 0.085 * len(costs) * (len(PHASES) + 1)), layout="constrained")
    for i, cost in enumerate(reversed(costs)):
        for j, phase in enumerate(reversed(PHASES)):
            event, left, at = cost.phase(phase), 0.0, i * (len(PHASES) + 1) + j
            for part, hue in zip(PARTS, HUES, strict=True):
                size = 0.0 if event is None else event["parts"][part] / 2**20
                axes.barh(at, size, left=left, height=0.85, color=colour(hue), label=part if not i + j else None)
                left += size
            if i == len(costs) - 1:  # said once, at the top
                axes.annotate(phase, (left, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=6.5,
                              color=colour("quiet"))  # fmt: skip
    middles = [i * (len(PHASES) + 1) + 1 for i in range(len(costs))]
    axes.set_yticks(middles, [labels.short(c.row.name) for c in reversed(costs)])
    axes.set_ylim(-1, len(costs) * (len(PHASES) + 1) - 0.5)
    axes.set_xlabel("MiB at the peak of each phase", loc="left")
    axes.margins(x=0.16)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2 if inches <= NARROW_INCHES else 4, borderpad=0)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    return figure


def timeline(measurement: Measurement) -> Plot | None:
    """Live bytes from allocation to allocation; None where none was recorded."""
    events = {e["row"]: e for e in measurement.of("timeline") if e["points"]}
    picked = [events[name] for name in dict.fromkeys((*TELLING, *events)) if name in events][: len(LINES)]
    if not picked:
        return None
    swing = picked[0]
    sizes = [b / 2**20 for _, b in swing["points"]]
    title = f"Within a step, live tensors of {swing['row']} swing between {min(sizes):.1f} and {max(sizes):.1f} MiB"
    words = "; ".join(f"{e['row']} peaks at {max(b for _, b in e['points']) / 2**20:.1f} MiB" for e in picked)
    return Plot("memory-timeline", title, f"MiB of live tensors over {swing['steps']} steps: {words}.",
                lambda inches: _timeline(picked, inches), source=heading(measurement))  # fmt: skip


def _timeline(picked: list[dict], inches: float) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, min(2.6, 0.7 * inches)), layout="constrained")
    for event, hue in zip(picked, LINES):
        times, live = zip(*event["points"], strict=True)
        axes.step([t * 1e3 for t in times], [b / 2**20 for b in live], where="post", linewidth=0.8,
                  color=colour(hue), label=event["row"])  # fmt: skip
    axes.set_xlabel(f"ms, over {picked[0]['steps']} steps with the meter on", loc="left")
    axes.set_ylabel("MiB of live tensors")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2 if inches <= NARROW_INCHES else 4, borderpad=0)
    return figure
