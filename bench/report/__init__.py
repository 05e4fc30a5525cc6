"""What is made from a stored measurement: one file an output, each rebuilt from the JSON alone."""

from pathlib import Path

from bench.measurement import Measurement
from bench.report import ladder, pictures, table, textbook_table
from bench.store import write_atomically


def write(measurement: Measurement, folder: Path) -> list[Path]:
    """Write latest.csv, latest.md, speedup.png and grid.png into the folder; returns their paths."""
    outputs: dict[str, str | bytes] = {
        "latest.csv": table.csv(measurement),
        "latest.md": table.markdown(measurement) + "\n" + textbook_table.markdown(measurement),
        "speedup.png": ladder.png(measurement),
    }
    drawn = pictures.png(measurement)
    if drawn is not None:
        outputs["grid.png"] = drawn
    for name, content in outputs.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in outputs]
