"""Every combination that was raced as a line: what it gains, what it costs, and whether another beats it in all."""

import math
from dataclasses import dataclass
from statistics import median

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.contenders import CONTENDERS, REFERENCE
from bench.memory import human
from bench.report import frontier
from bench.report.style import Plot, colour
from bench.report.table import shown
from bench.students_t import Interval
from bench.tune.record import Tuning
from bench.tune.space import BY_NAME, contender


@dataclass(frozen=True)
class Line:
    """One row. speedup: by the race's pairs, or, of one on a shorter path, by the finals'; ready_s: its first call;
    memory_bytes: of the finals."""

    name: str
    speedup: Interval
    pairs: int
    step_ms: float
    ready_s: float
    lossless: bool
    quality: str
    memory_bytes: float | None
    state: str

    def beats(self, other: "Line") -> bool:
        """Whether it is at least as fast, ready as early and as true to the reference, and better in one of them."""
        mine = (self.speedup.value, -self.ready_s, self.lossless)
        theirs = (other.speedup.value, -other.ready_s, other.lossless)
        return all(a >= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def lines(tuning: Tuning) -> list[Line]:
    """Every row of the race, the reference and what was timed on a shorter path in the finals; the fastest first."""
    standing, found = tuning.standing, []
    for row in [REFERENCE, *standing.times]:
        if row in standing.disqualified:
            continue
        alone = row == REFERENCE
        pairs = [] if alone else list(standing.times[row].values())
        step_s = standing.reference_step_s if alone else median(s for s, _ in pairs)
        speedup = Interval(1.0, 1.0, 1.0) if alone else standing.speedup(row)
        found.append(_line(tuning, row, speedup, len(pairs), step_s * 1e3, standing.ready_s.get(row, math.nan)))
    for timed in tuning.ordered:
        if timed.name in (REFERENCE, *standing.times) or timed.speedup is None or timed.step_ms is None:
            continue
        start = tuning.start(timed)
        found.append(_line(tuning, timed.name, timed.speedup, len(timed.pairs), timed.step_ms,
                           math.nan if start is None else start[0]))  # fmt: skip
    return sorted(found, key=lambda line: (-line.speedup.value, line.name))


def _line(tuning: Tuning, row: str, speedup: Interval, pairs: int, step_ms: float, ready_s: float) -> Line:
    judged = tuning.judged.get(row)
    known = CONTENDERS.get(row) or (contender(BY_NAME[row]) if row in BY_NAME else None)
    lossless = known is None or known.lossless
    quality = judged.verdict if judged is not None else "claims the same pictures" if lossless else "not looked at"
    return Line(row, speedup, pairs, step_ms, ready_s, lossless, quality, tuning.memory_of(row), state(tuning, row))


def state(tuning: Tuning, row: str) -> str:
    """What became of a row, in a few words."""
    if row == tuning.choice:
        return "chosen"
    if tuning.runner_up is not None and row == tuning.runner_up.name:
        return "runner-up"
    if row in tuning.rejected:
        return f"out: {tuning.rejected[row]}"
    if row in tuning.standing.beaten:
        return f"slower than {tuning.standing.beaten[row]['by']}"
    return "not told from the best"


def front(found: list[Line]) -> list[Line]:
    """The lines that no other beats."""
    return [line for line in found if not any(other.beats(line) for other in found)]


def markdown(tuning: Tuning) -> str:
    found = lines(tuning)
    on_front = {line.name for line in front(found)}
    head = ("combination", "speed-up [95 %]", "pairs", "ms/step", "first call s", "pictures", "memory", "front",
            "what became of it")  # fmt: skip
    table = [f"| {' | '.join(head)} |", "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- | --- |"]
    for line in found:
        speedup = "1" if line.name == REFERENCE else shown(line.speedup)
        cells = (line.name, speedup, f"{line.pairs}", f"{line.step_ms:.2f}", f"{line.ready_s:.1f}",
                 line.quality, human(line.memory_bytes), "●" * (line.name in on_front),
                 line.state.replace("|", "/"))  # fmt: skip
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table)


def frame(tuning: Tuning) -> pd.DataFrame:
    """The same for a CSV file, in plain units."""
    found = lines(tuning)
    on_front = {line.name for line in front(found)}
    return pd.DataFrame([
        {
            "combination": line.name, "speedup": line.speedup.value, "speedup_low": line.speedup.low,
            "speedup_high": line.speedup.high, "pairs": line.pairs, "step_ms": line.step_ms,
            "first_call_s": line.ready_s, "lossless": line.lossless, "quality": line.quality,
            "memory_bytes": line.memory_bytes, "on_front": line.name in on_front, "state": line.state,
        }
        for line in found
    ])  # fmt: skip


def plot(tuning: Tuning, name: str = "tune") -> Plot | None:
    """Speed-up against first call, with the front; None where nothing was raced."""
    found = [line for line in lines(tuning) if math.isfinite(line.ready_s)]
    if len(found) < 2:
        return None
    words = "; ".join(f"{line.name} {line.speedup.value:.2f} times, ready after {line.ready_s:.1f} s" for line in found)
    title = f"{tuning.choice} is what to turn on: {shown(tuning.speedup)} times as fast as the reference"
    return Plot(name, title, f"Speed-up against seconds of the first call: {words}.",
                lambda inches: _draw(found, tuning.choice, inches),
                note="Line: what no other beats in both. Bars: 95 %.")  # fmt: skip


def _draw(found: list[Line], choice: str, inches: float) -> Figure:
    figure, axes = plt.subplots(figsize=(inches, min(4.2, 0.5 * inches + 1.4)), layout="constrained")
    frontier.draw(axes, [(line.speedup.value, line.ready_s) for line in found])
    for line in found:
        hue = "green" if line.name == choice else "vermilion" if not line.lossless else "ink"
        ends = [[max(0.0, line.speedup.value - line.speedup.low)], [max(0.0, line.speedup.high - line.speedup.value)]]
        bars = ends if all(math.isfinite(end) for (end,) in ends) else None
        axes.errorbar(line.speedup.value, line.ready_s, xerr=bars, marker="D" if line.lossless else "s", markersize=4,
                      linestyle="", color=colour(hue), elinewidth=0.8)  # fmt: skip
    named = {line.name for line in front(found)} | {choice}
    _name(axes, sorted((line for line in found if line.name in named), key=lambda line: line.speedup.value))
    axes.set_xlabel("speed-up over the reference")
    axes.set_ylabel("first call, s")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.1)
    axes.grid()
    return figure


def _name(axes: Axes, found: list[Line]) -> None:
    """Names beside the points, ascending in speed: those of the slower half to the right, every other of near ones
    below."""
    middle = (found[0].speedup.value + found[-1].speedup.value) / 2
    below, before = False, None
    for line in found:
        to_the_left = line.speedup.value > middle
        near = before is not None and 0.5 < line.ready_s / before.ready_s < 2
        below = near and not below and not to_the_left
        dx, dy = -4 if to_the_left else 4, -10 if below else 4
        side = "right" if to_the_left else "left"
        text = axes.annotate(line.name, (line.speedup.value, line.ready_s), xytext=(dx, dy), ha=side, fontsize=6.5,
                             textcoords="offset points", color=colour("quiet"))  # fmt: skip
        text.set_in_layout(False)
        before = line
