"""A result file that is broken, strange or huge gives one clear sentence or a whole page, never a traceback."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench import store
from bench import walk as walks
from bench.__main__ import main
from bench.report import contents
from bench.report.sources import Beside
from tests.bench.report.made_up import hostile, walk
from tests.bench.synthetic import everything, first_call, measurement, pairs


def _first(stored: dict, kind: str) -> dict:
    return next(e for e in stored["events"] if e["event"] == kind)


def _set(kind: str, **fields) -> Callable[[dict], None]:
    return lambda stored: _first(stored, kind).update(fields)


def _without(kind: str, field: str) -> Callable[[dict], None]:
    return lambda stored: _first(stored, kind).pop(field)


# what is done to a whole result, and what the sentence must name
DAMAGE: dict[str, tuple[Callable[[dict], object], str]] = {
    "a time that is no number": (_set("pair", row_s=math.nan), "row_s = nan; it must be a positive number of seconds"),
    "a time of nothing": (_set("pair", reference_s=0.0), "reference_s = 0.0"),
    "a time in words": (_set("pair", row_s="fast"), "row_s = fast"),
    "an infinite segment": (_set("segment", seconds=math.inf), "seconds = inf"),
    "a pair without a process": (_without("pair", "process"), "process is missing"),
    "steps of none": (_set("first_call", steps=0), "steps = 0; it must be a whole number of at least 1"),
    "pictures of another shape": (_set("pictures", shape=[4, 3, 28, 28]), "bytes are not those of the shape"),
    "pictures that are no bytes": (_set("pictures", uint8_base64="§"), "it must be bytes in base64"),
    "an unknown row": (_set("pair", row="nobody"), "row = 'nobody' is not among the rows"),
    "an event without a kind": (lambda s: s["events"].append({"row": "ddim"}), "it must be a table that says its kind"),
    "an event that is a number": (lambda s: s["events"].append(7), "it must be a table"),
    "half a divergence": (lambda s: s["events"].append({"event": "divergence", "row": "ddim"}), "it is not whole"),
    "rows that are no names": (lambda s: s.update(rows=[1, 2]), "it must be a list of names"),
    "no environment": (lambda s: s["environment"].pop("torch"), "does not say 'torch'"),
    "a model of another world": (lambda s: s["workload"].update(model="<script>"), "unknown model '<script>'"),
    "another schema": (lambda s: s.update(schema=0), "has schema 0, this version reads 1"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_result_is_refused_in_one_sentence(tmp_path: Path, capsys, damage: str) -> None:
    stored = everything().json()
    broke, named = DAMAGE[damage]
    broke(stored)
    path = tmp_path / "2026.json"
    path.write_text(json.dumps(stored))
    assert main(["report", str(path)]) == 3
    said = capsys.readouterr()
    assert named in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == [path]  # nothing was half made


@pytest.mark.parametrize("broken", ["", "{}", '{"schema": 0}', '{"schema": 1, "images": 3}'])
def test_a_broken_walk_beside_a_result_is_told_of_and_the_result_is_shown(tmp_path: Path, capsys, broken: str) -> None:
    path = store.save(everything(), tmp_path)
    (path.parent / "walk").mkdir()
    (path.parent / "walk" / "walk.json").write_text(broken)
    assert main(["report", str(path)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("note: not shown: ")
    assert "walk.json" in said
    page = (path.parent / "report.html").read_text()
    assert "Not shown: " in page
    assert "python -m bench walk" in page


def test_a_walk_is_read_as_it_was_kept(tmp_path: Path) -> None:
    made = walk()
    walks.save(made, tmp_path / "walk.json")
    read = walks.load(tmp_path / "walk.json")
    assert (read.labels, read.timesteps, read.environment) == (made.labels, made.timesteps, made.environment)
    for one, other in zip((*made.images, *made.signals), (*read.images, *read.signals), strict=True):
        for name in ("x", "x0", "noise"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert (getattr(one, name) == getattr(other, name)).all()


def test_a_hostile_name_is_text_in_every_output() -> None:
    made = contents(hostile(), Beside())
    for name in ("report.html", "report.md"):
        assert "<script>document" not in str(made[name])
        assert "<img src=x" not in str(made[name])
    assert "&lt;script&gt;document" in str(made["report.html"])


def many(rows: int):
    """A result of so many rows, each timed in two processes."""
    names = [f"row-{i:05}" for i in range(rows)]
    calls = [first_call(name, 1000) for name in names]
    timed = [pair for i, name in enumerate(names) for pair in pairs(name, {0: [1 + i / rows], 1: [1.0]})]
    return measurement(["reference", *names], calls + timed)


@pytest.mark.parametrize("rows", [1100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_result_of_many_rows_is_a_page_that_says_what_it_leaves_out(rows: int) -> None:
    made = contents(many(rows), Beside())
    page = str(made["report.html"])
    assert len(page.encode()) < 6 * 2**20
    assert f"The first 1,000 of {rows + 1:,} rows" in page
    assert f"The {rows + 1 - 60:,} slowest rows are left out" in page
    assert len(pd.read_csv(io.StringIO(str(made["rows.csv"])))) == rows + 1
