"""The certificate as it is shown: a table, the comparison with a fixed percentage, and power against slowdown."""

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench import png_file
from bench.gate.proportion import lower_bound, upper_bound

PLANTED = {
    "same": "nothing", "plus2": "2 % (θ0)", "plus3": "3 %", "plus5": "5 % (θ1)", "plus10": "10 %",
    "sleep10": "10 % of sleep", "sleep20": "20 % of sleep", "sharp-same": "nothing (θ0 1 %, θ1 3 %)",
    "sharp-plus3": "3 % (θ0 1 %, θ1 3 %)",
}  # fmt: skip
MUST_BE_FOUND = ("plus5", "plus10", "sleep10", "sleep20", "sharp-plus3")
POWER_TITLE = "What the gate finds, and what it raises for nothing"
CONDITIONS = ("quiet", "one burner", "two burners", "bursts", "shared")


def table(made: dict[str, Any]) -> str:
    """The certificate as Markdown."""
    loads = made["load_1min"]
    lines = [
        f"**The gate's own errors** on {made['machine']}, {made['date'][:10]}, commit {made['commit']}; load average "
        f"before a launch {min(loads):.1f} to {max(loads):.1f}, the launch before it included. In brackets the "
        "one-sided 95 % bound (Clopper–Pearson), by decision, then with the launch of fresh processes as the unit. "
        "Seconds: until the first processes decided, then with the confirmation.", "",
        "| machine | planted | measured | decisions (launches) | FAIL | PASS | UNSURE | share of FAIL | median s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for condition in CONDITIONS:
        for kind, planted in PLANTED.items():
            if f := made["summary"].get(f"{condition}/{kind}"):
                lines.append("| " + " | ".join(_line(condition, kind, planted, f)) + " |")
    for condition, counts in made["beside"].items():
        lines += ["", *_beside(condition, counts)]
    return "\n".join(lines) + "\n"


def _line(condition: str, kind: str, planted: str, f: dict[str, Any]) -> list[str]:
    bound = f"≤ {f['fail_at_most']:.2%}; ≤ {f['launch_fail_at_most']:.0%}"
    if kind in MUST_BE_FOUND:
        bound = f"≥ {f['fail_at_least']:.1%}; ≥ {f['launch_all_fail_at_least']:.0%}"
    measured = f["measured_wall_slowdown" if kind.startswith("sleep") else "measured_slowdown"]
    return [
        condition, planted, f"{measured:+.1%}", f"{f['decisions']} ({f['launches']})", str(f["FAIL"]), str(f["PASS"]),
        str(f["UNSURE"]), f"{f['FAIL'] / f['decisions']:.1%} [{bound}]",
        f"{f['median_first_s']:.2f}, {f['median_s']:.2f}",
    ]  # fmt: skip


def _beside(condition: str, counts: dict[str, dict[str, int]]) -> list[str]:
    lines = [f"| on the same code, in the same minutes ({condition}) | false alarms | 5 % found | 10 % found |",
             "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for title, name in (("`--benchmark-compare-fail=mean:5%`", "fixed"), ("`python -m bench gate`", "gate")):
        cells = []
        for kind in ("same", "plus5", "plus10"):
            hits, n = counts[kind][f"{name}_FAIL"], counts[kind][name]
            cells.append(f"{hits} of {n} ({hits / n:.1%})" if n else "–")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def power_plot(summary: dict[str, dict[str, Any]]) -> bytes:
    """`draw_power` as a PNG file's bytes."""
    figure = draw_power(summary, 7)
    figure.axes[0].set_title(POWER_TITLE)
    made = png_file.of(figure, dpi=110)
    plt.close(figure)
    return made


def draw_power(summary: dict[str, dict[str, Any]], inches: float) -> Figure:
    """Share of FAIL against the measured slowdown, with two-sided 95 % bounds, one line a condition."""
    figure, axes = plt.subplots(figsize=(inches, 4), layout="constrained")
    for condition in CONDITIONS:
        _curve(axes, summary, condition, ("same", "plus2", "plus3", "plus5", "plus10"), condition, "-")
        _curve(axes, summary, condition, ("sharp-same", "sharp-plus3"), f"{condition}, θ0 1 %, θ1 3 %", ":")
    for limit in (2, 5):
        axes.axvline(limit, color="0.85", zorder=0)
    axes.set(xlabel="planted slowdown as measured, %", ylabel="share of decisions that FAIL", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize="small")
    return figure


def _curve(axes, summary: dict[str, dict[str, Any]], condition: str, kinds: tuple[str, ...], label: str, style: str):
    found = [summary[name] for kind in kinds if (name := f"{condition}/{kind}") in summary]
    if not found:
        return
    share = [f["FAIL"] / f["decisions"] for f in found]
    low = [s - lower_bound(f["FAIL"], f["decisions"], 0.025) for s, f in zip(share, found)]
    high = [upper_bound(f["FAIL"], f["decisions"], 0.025) - s for s, f in zip(share, found)]
    x = [100 * f["measured_slowdown"] for f in found]
    axes.errorbar(x, share, [low, high], marker="o", markersize=4, capsize=3, linestyle=style, label=label)
