"""CSV that pandas and spreadsheets read without options: where a number is not finite, the cell is empty.

pandas takes `inf` and `Infinity` for numbers, others for text. Where it matters why a cell is empty, a column says it.
"""

import math

import pandas as pd


def dumps(frame: pd.DataFrame) -> str:
    """A frame's lines, without its index; numbers at full precision."""
    return frame.replace([math.inf, -math.inf], math.nan).to_csv(index=False)
