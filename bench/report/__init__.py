"""What is made from a stored measurement: one file an output, each rebuilt from the JSON alone."""

from pathlib import Path

from bench.measurement import Measurement
from bench.report import cost_table, ladder, memory_chart, pictures, profile_chart, table, textbook_table
from bench.store import write_atomically


def write(measurement: Measurement, folder: Path) -> list[Path]:
    """Write latest.csv, latest.md and the pictures into the folder; returns their paths."""
    outputs: dict[str, str | bytes] = {
        "latest.csv": table.csv(measurement),
        "latest.md": "\n".join(
            filter(
                None,
                (
                    table.markdown(measurement),
                    cost_table.markdown(measurement),
                    textbook_table.markdown(measurement),
                ),
            )
        ),
        "speedup.png": ladder.png(measurement),
    }
    for name, picture in (("grid.png", pictures), ("memory.png", memory_chart), ("profile.png", profile_chart)):
        drawn = picture.png(measurement)
        if drawn is not None:
            outputs[name] = drawn
    for name, content in outputs.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in outputs]
