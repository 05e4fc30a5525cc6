"""slices.csv: one line a timed pair of slices, as it was measured and in the order measured."""

import pandas as pd

from bench import strict_csv
from bench.measurement import Measurement

COLUMNS = (
    "row", "process", "round", "reference_first", "reference_s", "row_s", "reference_wall_s", "row_wall_s", "disturbed",
)  # fmt: skip


def csv(measurement: Measurement) -> str:
    """Seconds a step of both slices of every pair, at full precision."""
    pairs = measurement.of("pair")
    more = sorted({name for pair in pairs for name in pair} - {*COLUMNS, "event"})  # telemetry, where there was any
    table = pd.DataFrame(pairs, columns=[*COLUMNS, *more])
    return strict_csv.dumps(table)
