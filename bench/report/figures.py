"""Every figure of a report by name, in the order of the page; None where nothing was measured for it."""

from markupsafe import Markup

from bench.gate import certificate_report
from bench.measurement import Measurement
from bench.report import ladder, markdown, memory_chart, pictures, profile_chart, quality_chart, slices_chart
from bench.report.sources import Beside
from bench.report.style import Plot
from bench.update import figure as update_figure


def plots(measurement: Measurement, beside: Beside) -> dict[str, Plot | None]:
    return {
        "speedup": ladder.plot(measurement),
        "speed_quality": quality_chart.against_speed(measurement, beside),
        "speed_memory": memory_chart.against_speed(measurement),
        "pictures": pictures.plot(measurement),
        "profile": profile_chart.plot(measurement),
        "update": update(beside),
        "memory": memory_chart.parts(measurement),
        "memory_timeline": memory_chart.timeline(measurement),
        "divergence": quality_chart.by_timestep(measurement, beside.quality),
        "steps_quality": quality_chart.steps(beside.quality),
        "guidance_quality": quality_chart.guidance(beside.quality),
        "slices": slices_chart.plot(measurement),
        "gate_power": gate_power(beside),
    }


def update(beside: Beside) -> Plot | None:
    """The fused update: alone, in a step, in an image."""
    if (cost := beside.update) is None:
        return None
    words = "; ".join(f"{what}: {before[0]:.4g} against {after[0]:.4g} {after[1]}, {' '.join(note.split())}"
                      for what, before, after, note in update_figure.savings(cost))  # fmt: skip
    return Plot("update", update_figure.message(cost), f"Bandwidth against size, and what is saved. {words}.",
                lambda inches: update_figure.draw(cost, inches), source=update_figure.heading(cost),
                bends=False)  # fmt: skip


def gate_power(beside: Beside) -> Plot | None:
    """What the gate finds, from its certificate."""
    if (made := beside.certificate) is None:
        return None
    words = "; ".join(f"{name}: {f['FAIL']} of {f['decisions']} decisions fail at {f['measured_slowdown']:+.1%}"
                      for name, f in made["summary"].items())  # fmt: skip
    return Plot("gate-power", certificate_report.POWER_TITLE, words + ".",
                lambda inches: certificate_report.draw_power(made["summary"], inches),
                note="Bars: 95 %.", source=f"{made['machine']}, {made['date'][:10]}, commit {made['commit']}",
                bends=False)  # fmt: skip


def certificate(beside: Beside) -> Markup | None:
    """The gate's certificate as tables."""
    if beside.certificate is None:
        return None
    return markdown.blocks(certificate_report.table(beside.certificate), "the gate's certificate")
