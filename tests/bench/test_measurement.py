"""What a row derives from events whose figures are known."""

import math
from statistics import fmean

import pytest

from bench import report
from bench.__main__ import failures
from bench.measurement import HALF_GREY_LEVEL
from bench.report import table
from bench.students_t import midmean
from bench.workload import from_json, workload
from tests.bench.synthetic import everything, first_call, measurement, pairs, probe, segments

RATIOS = {0: [0.8, 0.9, 0.5], 1: [0.82], 2: [0.7, 0.74]}


def two_rows(row: str = "ddim", steps: int = 50, ratios=RATIOS, *events: dict):
    calls = [first_call("reference", 1000), first_call(row, steps)]
    return measurement(["reference", row], [*calls, *pairs(row, ratios), *events]).row(row)


def test_speedup_is_from_the_mean_of_the_processes_midmeans_and_the_steps() -> None:
    row = two_rows()
    midmeans = [midmean([math.log(r) for r in values]) for values in RATIOS.values()]
    assert midmeans != sorted(midmeans)  # else a sum over sorted values could pass for it
    assert row.speedup.value == pytest.approx(math.exp(-fmean(midmeans)) * 1000 / 50, rel=1e-12)
    assert row.speedup.low < row.speedup.value < row.speedup.high
    assert row.wall_speedup.value == pytest.approx(row.speedup.value / 2, rel=1e-12)
    assert row.ratio_over(row.measurement.row("reference"), whole=False).value == pytest.approx(
        row.speedup.value * 50 / 1000, rel=1e-12
    )
    assert row.measurement.row("reference").speedup.value == 1


def test_ratio_over_another_row_uses_the_processes_both_were_in() -> None:
    events = [first_call(name, 1000) for name in ("reference", "textbook", "batched-cfg")]
    events += pairs("textbook", {0: [1.2], 1: [1.4], 5: [77.0]}) + pairs("batched-cfg", {0: [0.6], 1: [0.7], 4: [9.0]})
    made = measurement(["reference", "textbook", "batched-cfg"], events)
    assert made.row("batched-cfg").speedup_over_textbook.value == pytest.approx(2, rel=1e-12)


def test_no_ratio_over_a_row_without_a_process_in_common_or_that_failed() -> None:
    events = [*pairs("textbook", {0: [1.2]}), *pairs("batched-cfg", {1: [0.6]}), *pairs("ddim", {0: [0.6]})]
    rows = ["reference", "textbook", "batched-cfg", "ddim"]
    assert measurement(rows, events).row("batched-cfg").speedup_over_textbook is None
    assert measurement(rows, events).row("ddim").speedup_over_textbook.value == pytest.approx(2)
    failed = [*events, {"event": "error", "row": "textbook", "process": 0, "message": "broke"}]
    assert measurement(rows, failed).row("ddim").speedup_over_textbook is None


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_whole_run_is_timed_only_when_every_step_was(left_out: int) -> None:
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.1], 2: [1.2]}, *segments("ddim", 50, 0.5, 5)[left_out:])
    cell = table.cells(row)[table.COLUMNS.index("whole run s")]
    if left_out:
        assert row.whole_run_timed_s is None
        assert row.whole_run_s == pytest.approx(0.011 * 50)
        assert cell == "~0.55"
    else:
        assert row.whole_run_s == row.whole_run_timed_s == pytest.approx(0.5)
        assert cell == "0.50"
    assert row.images_per_s == pytest.approx(4 / row.whole_run_s)


def test_runs_taken_more_than_once_are_averaged_and_one_cut_short_is_left_out() -> None:
    runs = [*segments("ddim", 50, 0.5, 5), *segments("ddim", 50, 0.7, 5, run=1), *segments("ddim", 50, 9.0, 5, run=2)]
    row = two_rows("ddim", 50, {0: [1.0]}, *runs[:-1])
    assert row.whole_run_timed_s == pytest.approx(0.6)


def test_slices_against_whole() -> None:
    whole = [*segments("reference", 1000, 12.0), *segments("ddim", 50, 0.5, 5)]
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *whole)
    assert row.slices_against_whole == pytest.approx(20 / 24 - 1)
    assert two_rows("ddim", 50, {0: [1.0]}, *whole[4:]).slices_against_whole is None
    assert two_rows("ddim", 50, {0: [1.0]}, *whole[:4]).slices_against_whole is None


def test_a_slow_minute_falls_on_both_sides_of_the_whole_runs() -> None:
    """All of the short run and a tenth of the reference's are taken while everything lasts twice as long."""
    parts = {i: part for i, part in enumerate(segments("reference", 1000, 10.0, 10))}
    slow = [{**parts[3], "seconds": 2.0}, *segments("ddim", 50, 1.0, 1), {**parts[4], "seconds": 2.0}]
    order = [*[parts[i] for i in range(3)], *slow, *[parts[i] for i in range(5, 10)]]
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *order)
    assert row.whole_run_timed_s == 1.0  # as it was
    assert row.whole_speedup == pytest.approx(20 * 2 / 2)
    assert row.slices_against_whole == pytest.approx(0)


@pytest.mark.parametrize("first", [True, False])
def test_a_part_at_either_end_has_one_neighbour(first: bool) -> None:
    one = segments("ddim", 50, 0.5, 1)
    theirs = [
        {**part, "seconds": s} for part, s in zip(segments("reference", 1000, 10.0, 4), (2, 3, 3, 4), strict=True)
    ]
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *(one + theirs if first else theirs + one))
    assert row.whole_speedup == pytest.approx((2 if first else 4) / 250 / 0.01 * 20)


def test_only_parts_of_the_same_visit_are_beside_each_other() -> None:
    """The next visit is on another core, some seconds later."""
    early = [{**part, "visit": 1} for part in segments("reference", 1000, 10.0, 2)]
    late = [{**part, "visit": 2, "run": 1, "seconds": 20.0} for part in segments("reference", 1000, 10.0, 2)]
    one = [{**part, "visit": 2} for part in segments("ddim", 50, 1.0, 1)]
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *early, *one, *late)
    assert row.whole_speedup == pytest.approx(40)
    alone = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *early, *[{**part, "visit": 3} for part in one], *late)
    assert alone.whole_speedup == pytest.approx((10 + 40) / 2)


def test_the_reference_is_held_against_nothing() -> None:
    row = two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *segments("reference", 1000, 10.0))
    assert row.measurement.row("reference").slices_against_whole is None


def test_a_run_cut_short_says_nothing_of_the_slices() -> None:
    whole = segments("reference", 1000, 10.0)
    cut = [*segments("ddim", 50, 0.5, 5), *segments("ddim", 50, 9.0, 5, run=1)[:-1]]
    assert two_rows("ddim", 50, {0: [1.0], 1: [1.0]}, *whole, *cut).whole_speedup == pytest.approx(20)


FAULTS = {
    "too far off": [probe("batched-cfg", HALF_GREY_LEVEL * 1.01)],
    "NaN": [probe("batched-cfg", math.nan)],
    "NaN in one of two": [probe("batched-cfg", 0.0), probe("batched-cfg", math.nan)],
    "NaN, then not": [probe("batched-cfg", math.nan), probe("batched-cfg", 0.0)],
    "raised": [{"event": "error", "row": "batched-cfg", "process": 1, "message": "ValueError: it broke"}],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_row_is_red_and_shows_no_figure(fault: str) -> None:
    row = two_rows("batched-cfg", 1000, RATIOS, *FAULTS[fault])
    assert row.status == "red"
    assert row.speedup is None
    assert row.speedup_over_best_lossless is None
    cells = table.cells(row)
    assert set(cells[1:-1]) == {"–"}
    assert cells[-1].startswith("FAILED: ")
    assert row.reason in cells[-1]
    assert row.measurement.best_lossless == "reference"
    assert failures(row.measurement) == [("batched-cfg", row.reason)]


@pytest.mark.parametrize(("name", "error", "status"), [
    ("batched-cfg", HALF_GREY_LEVEL, "ok"),
    ("batched-cfg", 0.0, "ok"),
    ("autocast-bf16", 0.5, "ok"),
    ("autocast-bf16", math.nan, "red"),
    ("autocast-bf16", math.inf, "red"),
])  # fmt: skip
def test_what_the_probe_allows(name: str, error: float, status: str) -> None:
    assert two_rows(name, 1000, RATIOS, probe(name, error)).status == status


def test_unavailable_is_grey_and_no_failure() -> None:
    made = measurement(
        ["reference", "ddim", "tf32"],
        [*pairs("ddim", {0: [1.0]}), {"event": "unavailable", "row": "tf32", "message": "needs CUDA"}],
    )
    assert made.row("tf32").status == "grey"
    assert table.cells(made.row("tf32"))[-1] == "needs CUDA"
    assert failures(made) == []


def test_a_missing_row_is_never_dropped_and_is_a_failure(tmp_path) -> None:
    made = measurement(["reference", "ddim", "strided"], [first_call("strided", 250), *pairs("ddim", {0: [1.0]})])
    assert made.row("strided").status == "missing"
    assert failures(made) == [("strided", "not measured")]
    report.write(made, tmp_path)
    assert "\nstrided,missing," in (tmp_path / "rows.csv").read_text()
    assert "| strided | – |" in (tmp_path / "report.md").read_text()
    assert "\nstrided " in table.terminal(made)


def test_a_reference_that_was_never_timed_is_missing() -> None:
    made = measurement(["reference", "ddim"], [first_call("reference", 1000)])
    assert made.row("reference").status == "missing"
    assert [name for name, _ in failures(made)] == ["reference", "ddim"]


def test_best_lossless_ignores_the_red_and_the_lossy() -> None:
    made = everything()  # `compiled` is faster but red, `ddim` faster but draws other pictures
    assert made.best_lossless == "batched-cfg"
    assert made.row("ddim").speedup_over_best_lossless.value == pytest.approx(20 * 0.82, rel=0.05)


def test_needs_longer_compares_with_the_presets_promise() -> None:
    close, wide = {0: [0.8], 1: [0.801], 2: [0.802]}, {0: [0.8], 1: [0.9], 2: [1.0]}
    assert not two_rows("ddim", 50, close).needs_longer
    assert two_rows("ddim", 50, wide).needs_longer
    assert two_rows("ddim", 50, {0: [0.8]}).needs_longer  # one process: no interval
    assert "interval needs a longer run" in table.cells(two_rows("ddim", 50, wide))[-1]


def test_first_call_says_whether_it_compiled() -> None:
    later = {**first_call("compiled", 1000, 2.0), "process": 0}
    made = measurement(["reference", "compiled"], [first_call("compiled", 1000, 40.0, True), later])
    assert made.row("compiled").first_call_s == (40.0, True)


def test_workload_refuses_what_makes_no_job() -> None:
    for wrong in ({"budget_s": math.nan}, {"budget_s": 0}, {"steps": 0}, {"steps": 1001}, {"batch": 0}, {"rounds": 0}):
        with pytest.raises(ValueError, match=r"must be|outside"):
            workload("smoke", **wrong)


def test_a_stored_workload_of_another_version_is_read() -> None:
    stored = workload("quick").json()
    assert from_json({**stored, "max_processes": 6}) == workload("quick")
