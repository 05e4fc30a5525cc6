"""speedup.png: one rung a row, the speed-up over the reference with its interval."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.measurement import Measurement, Row
from bench.report.table import heading, shown

LOSSLESS, LOSSY, RED = "#0072B2", "#D55E00", "#999999"  # Okabe & Ito (2008): safe for colour blindness


def png(measurement: Measurement) -> bytes:
    """The ladder as a PNG file's bytes; the same input gives the same picture."""
    rows = [measurement.row(name) for name in measurement.rows]
    shown_rows = sorted((r for r in rows if r.speedup is not None), key=lambda r: r.speedup.value)  # type: ignore[union-attr]
    absent = [r for r in rows if r.speedup is None]
    figure, axes = plt.subplots(figsize=(11, 1.9 + 0.36 * max(1, len(shown_rows))), layout="constrained")
    for height, row in enumerate(shown_rows):
        _rung(axes, height, row)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(shown_rows)), [r.name for r in shown_rows])
    axes.set_ylim(-0.7, len(shown_rows) - 0.3)
    axes.set_xscale("log")
    high = max((r.speedup.value for r in shown_rows), default=1.0)  # type: ignore[union-attr]
    low = min((r.speedup.value for r in shown_rows), default=1.0)  # type: ignore[union-attr]
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low * 0.6 <= t <= high * 1.8]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(low * 0.75, high * 2.6)
    axes.set_xlabel("speed-up of a whole run over the reference, 95 % interval over fresh processes (log scale)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.suptitle(_message(measurement), x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(_wrapped(heading(measurement), 130), loc="left", fontsize=7.5, color="0.3")
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=LOSSLESS, label="changes no picture"),
               plt.Line2D([], [], marker="s", linestyle="", color=LOSSY, label="other pictures")]  # fmt: skip
    axes.legend(handles=handles, loc="lower right", fontsize=8)
    if absent:
        note = "no bar: " + "; ".join(f"{r.name} ({r.status}: {r.reason or 'not measured'})" for r in absent)
        figure.supxlabel(_wrapped(note, 170), fontsize=6.5, color="0.35", x=0.01, ha="left")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return out.getvalue()


def _rung(axes, height: int, row: Row) -> None:
    speedup = row.speedup
    assert speedup is not None
    colour, marker = (LOSSLESS, "o") if row.lossless else (LOSSY, "s")
    if speedup.low == speedup.low:
        axes.plot([speedup.low, speedup.high], [height, height], color=colour, linewidth=5, alpha=0.35)
    axes.plot(speedup.value, height, marker=marker, color=colour, markersize=6)
    text = "reference" if row.name == "reference" else shown(speedup)
    axes.annotate(text, (max(speedup.value, speedup.high), height), xytext=(9, 0),
                  textcoords="offset points", va="center", fontsize=8)  # fmt: skip


def _message(measurement: Measurement) -> str:
    best = measurement.row(measurement.best_lossless)
    if best.speedup is None or best.name == "reference":
        return "Nothing that changes no picture beats the reference here"
    return f"{best.name} is the fastest that changes no picture: {shown(best.speedup)} times the reference"


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)).replace("$", "\\$")  # a dollar would begin a formula
