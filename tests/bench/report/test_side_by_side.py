"""Several results side by side: each over its own reference, what differs said, nothing mixed."""

import io
import json

import pandas as pd
import pytest

from bench import store
from bench.__main__ import main
from bench.report import side_by_side
from sampler.errors import UsageError
from tests.bench.report.made_up import hostile
from tests.bench.synthetic import everything, measurement, pairs


def result(ratio: float, **environment):
    made = measurement(["reference", "ddim", "tf32"], pairs("ddim", {0: [ratio], 1: [ratio * 1.01]}))
    made.events.append({"event": "unavailable", "row": "tf32", "message": "needs CUDA"})
    made.environment |= environment
    return made


def lettered(*measurements):
    return [side_by_side.Result(letter, m) for letter, m in zip("ABCDEF", measurements)]


def test_each_speedup_is_over_its_own_reference() -> None:
    made = side_by_side.contents([result(0.5), result(0.25, commit="9876543210")])
    line = next(l for l in str(made["compare.md"]).splitlines() if l.startswith("| ddim |"))
    assert [cell.strip().split(" ")[0] for cell in line.split("|")[2:4]] == ["1.99", "3.98"]
    assert line.rstrip(" |").endswith("apart")
    read = pd.read_csv(io.StringIO(str(made["compare.csv"])))
    assert list(read[read.row == "ddim"].result) == ["A", "B"]
    assert list(read[read.row == "ddim"].speedup.round(2)) == [1.99, 3.98]
    assert "tf32" not in {line.split("|")[1].strip() for line in str(made["compare.md"]).splitlines() if "|" in line}


def test_what_differs_is_said() -> None:
    same = side_by_side.differences(lettered(result(0.5), result(0.5)))
    assert same == "They differ in nothing that was recorded."
    lines = side_by_side.differences(lettered(result(0.5), result(0.5, torch="3.0"))).splitlines()
    assert [l for l in lines if l.startswith("| torch")] == ["| torch | 2.11.0 | 3.0 |"]
    assert "One machine" in side_by_side.caution(lettered(result(0.5), result(0.5, commit="9876543210")))
    assert "travels to no other" in side_by_side.caution(lettered(result(0.5), result(0.5, torch="3.0")))


def test_more_results_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="7 results; at most 6"):
        side_by_side.contents([result(0.5)] * 7)


def test_the_command_writes_a_page_of_two(tmp_path, capsys) -> None:
    one, other = store.save(everything(), tmp_path / "a"), tmp_path / "hostile.json"
    other.write_text(json.dumps(hostile().json()))  # its commit would be no name of a file
    assert main(["report", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    written = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in written] == [
        "compare.html", "compare.md", "compare.csv", "compare.png",
    ]  # fmt: skip
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<script>document" not in page
    assert "A: made-up-cpu" in page
    assert "<script>document" not in (tmp_path / "out" / "compare.md").read_text()


@pytest.mark.extra
def test_the_page_of_several_in_a_browser(opened, tmp_path) -> None:
    path = tmp_path / "compare.html"
    path.write_text(str(side_by_side.contents([result(0.5), hostile(), result(2.0)])["compare.html"]), encoding="utf-8")
    tab = opened(path, "narrow", "dark")
    assert tab.heard == []
    assert [url for url in tab.asked if not url.startswith("data:")] == [path.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
