"""Several results side by side: machines, revisions or workloads. No figure mixes two of them."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from bench import strict_csv
from bench.contenders import REFERENCE
from bench.environment import MOMENTARY
from bench.measurement import Measurement, Row
from bench.report import labels, page, table
from bench.report.ladder import drawable, label_speed
from bench.report.style import CYCLE, PALETTE, Plot, colour
from bench.report.table import shown
from sampler.errors import UsageError

LETTERS, MARKERS = "ABCDEF", "osD^vP"
MOST_ROWS = 60


@dataclass(frozen=True)
class Result:
    """A measurement with the letter it goes by on the page."""

    letter: str
    measurement: Measurement

    @property
    def name(self) -> str:
        e = self.measurement.environment
        dirty = " + uncommitted changes" if e["dirty"] else ""
        return f"{self.letter}: {e['machine']}, commit {e['commit']}{dirty}, {self.measurement.started}"

    def row(self, name: str) -> Row | None:
        return self.measurement.row(name) if name in self.measurement.rows else None


def contents(measurements: list[Measurement]) -> dict[str, str | bytes]:
    """compare.html, .md, .csv and the figure, by name; refuses more results than can be told apart."""
    if len(measurements) > len(MARKERS):
        raise UsageError(f"{len(measurements)} results; at most {len(MARKERS)} can be told apart side by side")
    results = [Result(LETTERS[i], measurement) for i, measurement in enumerate(measurements)]
    figure = plot(results)
    return {
        "compare.html": html(results, figure), "compare.md": "\n".join([rows_table(results), differences(results)]),
        "compare.csv": csv(results), "figures/compare.png": figure.png(),
    }  # fmt: skip


def names(results: list[Result]) -> list[str]:
    """Every row of any result that was measured in one of them, in the order of the results."""
    found = dict.fromkeys(name for r in results for name in r.measurement.rows)
    return [name for name in found if any((row := r.row(name)) and row.status in ("ok", "red") for r in results)]


def html(results: list[Result], figure: Plot) -> str:
    script = page.text("theme.js")
    return page.environment().get_template("compare.html").render(
        title=f"{len(results)} results side by side", message=message(results), caution=caution(results),
        plot=figure, heading="", table=rows_table(results), differences=differences(results), palette=PALETTE,
        style=Markup(page.text("report.css")), script=Markup(script), policy=page.policy(script),
    ) + "\n"  # fmt: skip


def message(results: list[Result]) -> str:
    """The best lossless row of each, in a sentence."""
    said = []
    for result in results:
        best = result.measurement.row(result.measurement.best_lossless)
        said.append(f"**{result.letter}**: {best.name}, **{'1' if best.speedup is None else shown(best.speedup)}×**")
    return f"Fastest without changing a picture: {'; '.join(said)}."


def caution(results: list[Result]) -> str:
    """What may be compared: a ratio to another implementation does not travel between machines."""
    first, *others = (result.measurement for result in results)
    if all(_environment(m) == _environment(first) and m.workload == first.workload for m in others):
        return "One machine, one workload: the ratios may be compared, the milliseconds only as far as it was as quiet."
    return "They differ in more than the commit: a ratio holds for its own machine and workload, travels to no other."


def _environment(measurement: Measurement) -> dict[str, object]:
    return {name: value for name, value in measurement.environment.items() if name not in MOMENTARY}


def rows_table(results: list[Result]) -> str:
    """Speed-up and ms a step of each row in each result; and whether two intervals overlap."""
    two = len(results) == 2
    head = ["row", *(f"{r.letter}: speed-up [95 %]" for r in results), *(f"{r.letter}: ms/step" for r in results)]
    lines = []
    for name in names(results):
        rows = [r.row(name) for r in results]
        line = [name, *map(_speed, rows), *(_step(row) for row in rows)]
        lines.append([*line, _overlap(*rows)] if two else [*line, ""])
    head.append("intervals" if two else "")
    return "\n".join([*(f"**{table.safe(r.name)}**\n" for r in results), *table._table(head, lines), ""])


def _speed(row: Row | None) -> str:
    if row is None or row.status in ("grey", "missing"):
        return "–"
    if row.status == "red":
        return f"FAILED: {row.reason}"
    return "1 (reference)" if row.name == REFERENCE else shown(row.speedup)


def _step(row: Row | None) -> str:
    return "–" if row is None or row.status != "ok" else table._number(row.step_ms, ".2f")


def _overlap(one: Row | None, other: Row | None) -> str:
    if one is None or other is None or one.speedup is None or other.speedup is None or one.name == REFERENCE:
        return ""
    if one.speedup.low != one.speedup.low or other.speedup.low != other.speedup.low:
        return "one process: unknown"
    return "overlap" if one.speedup.overlaps(other.speedup) else "apart"


def differences(results: list[Result]) -> str:
    """Of environment and workload, what is not the same in all; the commit and the moment too."""
    facts = [{**r.measurement.environment, **{f"workload: {k}": v for k, v in r.measurement.workload.json().items()},
              "started": r.measurement.started, "command": r.measurement.command} for r in results]  # fmt: skip
    keys = dict.fromkeys(key for fact in facts for key in fact)
    lines = [[key, *(str(fact.get(key, "not recorded")) for fact in facts)] for key in keys
             if len({str(fact.get(key, "not recorded")) for fact in facts}) > 1]  # fmt: skip
    if not lines:
        return "They differ in nothing that was recorded."
    return "\n".join([*table._table(["what", *(r.letter for r in results)], lines), ""])


def csv(results: list[Result]) -> str:
    """One line a result and row, with every figure of rows.csv."""
    return strict_csv.dumps(pd.concat([table.frame(r.measurement).assign(result=r.letter) for r in results]))


def plot(results: list[Result]) -> Plot:
    """The ladders of all, a rung a row, a marker a result."""
    timed = [name for name in names(results) if any((row := r.row(name)) and drawable(row) for r in results)]
    timed.sort(key=lambda name: max(row.speedup.value for r in results if (row := r.row(name)) and drawable(row)))  # type: ignore[union-attr]
    timed = timed[-MOST_ROWS:]
    words = "; ".join(f"{name}: " + ", ".join(f"{r.letter} {_speed(r.row(name))}" for r in results)
                      for name in reversed(timed))  # fmt: skip
    return Plot("compare", message(results).replace("**", ""), f"Speed-up over each result’s own reference. {words}.",
                lambda inches: _draw(results, timed, inches), note="; ".join(r.name for r in results))  # fmt: skip


def _draw(results: list[Result], timed: list[str], inches: float) -> Figure:
    apart = 0.7 / len(results)
    figure, axes = plt.subplots(figsize=(inches, 1.1 + (0.2 + 0.09 * len(results)) * max(3, len(timed))),
                                layout="constrained")  # fmt: skip
    values = [1.0]
    for i, result in enumerate(results):
        hue = colour(CYCLE[i])
        for at, name in enumerate(timed):
            row = result.row(name)
            if row is None or not drawable(row) or row.speedup is None:
                continue
            height, speedup = at + apart * ((len(results) - 1) / 2 - i), row.speedup
            if speedup.low == speedup.low:
                axes.plot([speedup.low, speedup.high], [height] * 2, color=hue, linewidth=3.5, alpha=0.35)
            axes.plot(speedup.value, height, MARKERS[i], color=hue, markersize=4)
            values.append(speedup.value)
    low, high = min(values) * 0.8, max(values) * 1.25
    axes.axvline(1, color=colour("ink"), linewidth=0.8)
    axes.set(xscale="log", xlim=(low, high), ylim=(-0.7, max(1, len(timed)) - 0.3))
    axes.set_yticks(range(len(timed)), [labels.short(name) for name in timed])
    label_speed(axes, inches, "its own reference")
    handles = [plt.Line2D([], [], marker=MARKERS[i], linestyle="", markersize=4, color=colour(CYCLE[i]), label=r.letter)
               for i, r in enumerate(results)]  # fmt: skip
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(results), borderpad=0)
    return figure
