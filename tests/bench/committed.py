"""What is committed beside raw results holds the same values as what is made of them now; its wording may be older."""

import io
import re

import numpy as np
import pandas as pd

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def table_numbers(markdown: str) -> list[list[str]]:
    """The numbers of every line of the tables in a Markdown text."""
    return [NUMBER.findall(line) for line in markdown.splitlines() if line.startswith("|")]


def assert_same_tables(one: str, other: str) -> None:
    assert table_numbers(one)
    assert table_numbers(one) == table_numbers(other)


def assert_same_csv(one: str, other: str) -> None:
    """Every number by its column, whatever else a column says."""
    mine, theirs = (pd.read_csv(io.StringIO(text)) for text in (one, other))
    assert list(mine.columns) == list(theirs.columns)
    assert len(mine) == len(theirs) > 0
    for name in mine.columns:
        if mine[name].dtype.kind in "fi":
            np.testing.assert_allclose(mine[name].astype(float), theirs[name].astype(float), rtol=1e-12, err_msg=name)
