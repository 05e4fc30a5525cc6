"""What is made from a stored measurement: one file an output, each rebuilt from what is stored alone."""

from pathlib import Path

from bench.measurement import Measurement
from bench.report import cost_table, figures, page, slices_csv, table, textbook_table
from bench.report.sources import Beside
from bench.store import write_atomically


def write(measurement: Measurement, folder: Path, beside: Beside | None = None) -> list[Path]:
    """Write report.html, report.md, rows.csv, slices.csv and the figures into the folder; returns their paths.

    beside: what other commands have measured on the same machine, for the page to show.
    """
    return keep(contents(measurement, beside or Beside()), folder)


def keep(outputs: dict[str, str | bytes], folder: Path) -> list[Path]:
    """Write outputs by their names into a folder; returns their paths."""
    for name, content in outputs.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in outputs]


def contents(measurement: Measurement, beside: Beside) -> dict[str, str | bytes]:
    """Every output by its name; the same input gives the same bytes."""
    plots = figures.plots(measurement, beside)
    parts = (table.markdown(measurement), cost_table.markdown(measurement), textbook_table.markdown(measurement))
    outputs: dict[str, str | bytes] = {
        "report.html": page.html(measurement, beside, plots),
        "report.md": "\n".join(filter(None, parts)),
        "rows.csv": table.csv(measurement),
        "slices.csv": slices_csv.csv(measurement),
    }
    for plot in filter(None, plots.values()):
        outputs[f"figures/{plot.name}.png"] = plot.png()
    return outputs
