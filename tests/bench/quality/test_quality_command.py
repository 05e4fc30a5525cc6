"""`python -m bench quality`: what it writes, what turns its exit, and that a result read again is the same."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from bench import __main__, environment
from bench.contenders import CONTENDERS
from bench.environment import ROOT
from bench.quality import charts, command, plan, record, tables
from bench.quality.drawing import Drawn
from bench.quality.equivalence import EQUIVALENT, LOSSES, UNSURE, WORSE, Loss
from bench.quality.judging import Figures, real_images
from bench.quality.record import Judged, Quality
from bench.quality.same_noise import Divergence
from bench.quality.trial import GOOD, Power, Tried
from bench.report import quality_chart
from sampler.errors import UsageError
from tests.bench.committed import assert_same_csv, assert_same_tables
from tests.bench.synthetic import ENVIRONMENT

N = 200


def figures(kernel: float = 0.1, lost: float = 0.0, error: float = 0.005, correct: int = 190) -> Figures:
    losses = {name: Loss(lost if name == "kernel" else 0.0, error, N) for name in LOSSES}
    return Figures(N, N, Loss(kernel, 0.02, N), 7.0, 0.5, 0.4, correct, 8.0, 9.0, losses)


def made_up() -> Quality:
    """Every point judged alike, but for the anchors and the guidance scales."""
    points = {}
    for name, point in plan.points().items():
        damaged = name == plan.DAMAGED
        points[name] = Judged("d", point.path.steps, point.guidance, point.seed, 1.5,
                              figures(0.2 if damaged else 0.1, 0.1 if damaged else 0.0))  # fmt: skip
    best = points[plan.guidance_point(2.0)]
    points[plan.guidance_point(2.0)] = replace(best, figures=figures(0.05))
    good, bad = {n: Loss(0.0, 0.01, N) for n in LOSSES}, {n: Loss(0.5, 0.01, N) for n in LOSSES}
    trial = [Tried(GOOD, False, EQUIVALENT, "fine", good), Tried("25 of 1,000 steps", True, WORSE, "off", bad)]
    divergence = {name: Divergence((9, 5, 0), (1e-6,) * 3, (1e-6,) * 3, (1e-7,) * 3, 2.0, True, name == "reference")
                  for name in ("reference", "compiled")}  # fmt: skip
    return Quality({**ENVIRONMENT}, "2026-01-02T03:04:05Z", "made up", N, points, figures(0.0), figures(30.0), trial,
                   [Power(N, 0.9, 0.8)], divergence, took_s={"drawing": 60.0},
                   made={"pictures": "commit 0123456789"})  # fmt: skip


def lossy(found: Quality, row: str, **how) -> Quality:
    point = plan.ROWS[row].point
    found.judged[point] = replace(found.judged[point], figures=figures(**how))
    return found


def test_a_result_read_again_is_the_same(tmp_path: Path) -> None:
    found = made_up()
    (tmp_path / "q.json").write_text(found.json())
    assert record.load(tmp_path / "q.json").json() == found.json()


def test_a_row_outside_its_budget_fails_and_says_by_what() -> None:
    found = lossy(made_up(), "ddim", lost=0.5)
    assert found.verdict("ddim")[0] == WORSE
    ((row, why),) = found.failures()
    assert row == "ddim"
    assert why.startswith("layer 2 (other pictures): the loss of kernel distance, 0.5")


def test_a_row_without_a_budget_is_reported_and_not_gated() -> None:
    found = lossy(made_up(), "textbook-strided", lost=5.0)
    assert CONTENDERS["textbook-strided"].budget is None
    assert found.failures() == []
    assert "reported only" in tables.rows(found)


def test_a_metric_that_fails_its_trial_voids_no_row() -> None:
    found = lossy(made_up(), "ddim", lost=0.5)
    found.trial[1] = replace(found.trial[1], verdict=EQUIVALENT)
    assert found.verdict("ddim")[0] == UNSURE
    assert "did not pass its trial" in found.verdict("ddim")[1]
    assert [name for name, _ in found.failures()] == ["the metric's trial"]


def test_a_divergence_fails() -> None:
    found = made_up()
    found.divergence["compiled"] = replace(found.divergence["compiled"], error=(1e-6, 1e-3, 1e-6))
    ((row, why),) = found.failures()
    assert row == "compiled"
    assert "layer 1" in why
    assert "timestep 5" in why


def run(found: Quality, tmp_path: Path, *options: str) -> int:
    folder = tmp_path / environment.machine("cpu") / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(found.json())
    return __main__.main(["quality", "--report", "--out", str(tmp_path), *options])


@pytest.mark.parametrize(
    ("how", "options", "expected"),
    [
        ({}, (), 0),
        ({}, ("--strict",), 0),
        ({"error": 0.5}, (), 0),
        ({"error": 0.5}, ("--strict",), 2),
        ({"lost": 0.5}, (), 1),
        ({"lost": 0.5}, ("--strict",), 1),
    ],
)
def test_the_exit_says_what_was_found(how, options, expected: int, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(command, "write", lambda found, folder: [])
    assert run(lossy(made_up(), "ddim", **how), tmp_path, *options) == expected
    out, err = capsys.readouterr()
    assert "every set judged rightly" in out
    assert ("FAILED ddim" in err) == (expected == 1)


def test_every_output_is_written_and_says_what_it_should(tmp_path: Path) -> None:
    found = made_up()
    run(found, tmp_path)
    folder = tmp_path / environment.machine("cpu") / "quality"
    read = pd.read_csv(folder / "quality.csv").set_index("point")
    ends = {"real test images (floor)", "noise (ceiling)"}
    assert set(read.index) == {*plan.points(), *ends}
    steps = pd.read_csv(folder / "steps.csv")
    assert set(zip(steps["sampler"].dropna(), steps["steps"].dropna())) == {
        (sampler, count) for sampler in plan.SAMPLERS for count in plan.STEPS
    }
    guidance = pd.read_csv(folder / "guidance.csv")
    assert list(guidance["guidance"].dropna()) == list(plan.GUIDANCE)
    assert set(guidance["point"]) >= ends
    assert read.loc[plan.DAMAGED, "kernel_lost"] == 0.1
    assert read.loc[plan.DAMAGED, "kernel_lost_low"] < 0.1 < read.loc[plan.DAMAGED, "kernel_lost_high"]
    text = (folder / "quality.md").read_text()
    for row in plan.ROWS:
        assert f"| {row} |" in text
    assert "Best scale: **2**" in text
    assert "N = 200" in text
    assert "**floor**" in text
    assert "**ceiling**" in text
    for name in ("steps.png", "guidance.png", "divergence.png"):
        assert Image.open(folder / name).size > (300, 100)


def test_the_same_result_gives_the_same_bytes() -> None:
    found = made_up()
    for chart in (charts.steps, charts.guidance):
        one = chart(found)
        assert one == chart(found)
        assert Image.open(io.BytesIO(one)).size > (300, 100)


def test_the_textbooks_claims_stand_beside_figures_with_intervals() -> None:
    text = tables.rows(made_up())
    for row, claim in tables.CLAIMS.items():
        assert row in CONTENDERS
        lines = [line for line in text.splitlines() if line.startswith(f"| {row} | {claim} |")]
        if row in plan.ROWS:
            assert "[" in lines[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--samples", "7"], "a multiple of ten"),
        (["--samples", "40"], "nothing can be said"),
        (["--report"], "cannot read"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(options: list[str], why: str, tmp_path: Path, capsys) -> None:
    assert __main__.main(["quality", "--out", str(tmp_path), *options]) == 3
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_the_chart_says_from_how_few_steps_on_a_loss_is_seen() -> None:
    title = quality_chart.steps(made_up()).title
    assert title.startswith("Down to 50 ancestral steps no loss of kernel distance is seen; 25 lose 0.100 [0.09")
    assert title.endswith("(200 pictures a point)")
    found = made_up()
    for steps in plan.STEPS[1:]:
        point = found.judged[f"ancestral-{steps}"]
        found.judged[f"ancestral-{steps}"] = replace(point, figures=figures(lost=0.1))
    assert quality_chart.steps(found).title.startswith("Every cut costs quality; 500 lose 0.100 [")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for content in ("{}", "[]", "not json", json.dumps({"schema": 99})):
        (tmp_path / "q.json").write_text(content)
        with pytest.raises(ValueError, match=r"q\.json"):
            record.load(tmp_path / "q.json")


def test_layer_1_alone_keeps_the_pictures_found_before_and_says_of_when(tmp_path: Path, monkeypatch) -> None:
    before = made_up()
    monkeypatch.setattr(command, "write", lambda found, folder: [])
    run(before, tmp_path)
    monkeypatch.setattr(command.divergence, "compare", lambda asked, rows, found, *_: found.update(before.divergence))
    arguments = ["quality", "--only", "same-noise", "--out", str(tmp_path)]
    assert __main__.main(arguments) == 0
    path = tmp_path / environment.machine("cpu") / "quality" / "quality.json"
    kept = record.load(path)
    assert set(kept.judged) == set(before.judged)
    assert kept.power == before.power
    assert kept.metric_holds
    assert kept.made["pictures"] == "commit 0123456789"
    assert f"commit {environment.commit()[0]}" in kept.made["same noise"]
    path.write_text("{}")
    monkeypatch.setattr(command.divergence, "compare", lambda *_: pytest.fail("worked before it refused"))
    assert __main__.main(arguments) == 3


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/quality/quality.json.gz")), ids=lambda p: p.parts[-3])
def test_what_is_committed_is_made_from_the_committed_result(path: Path) -> None:
    found = record.load(path)
    assert found.judged
    assert found.divergence
    assert_same_tables((path.parent / "quality.md").read_text(), tables.markdown(found))
    assert_same_csv((path.parent / "quality.csv").read_text(), tables.csv(found))
    assert found.failures() == []
    assert found.metric_holds


def test_the_readme_says_what_was_found() -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    found = record.load(ROOT / "results" / "amd-epyc-avx512-2cpu" / "quality" / "quality.json.gz")
    for line in tables.claimed(found).splitlines():
        assert line in readme


def test_rows_chosen_are_judged_with_what_they_stand_on_and_nothing_else() -> None:
    found = plan.of_rows(["ddim"])
    assert {*plan.ANCHORS, "ddim-50", "ddim-50-seed1", "ancestral-50"} == found
    assert found < set(plan.points())
    with pytest.raises(UsageError, match="unknown row 'all-lossless'"):
        plan.of_rows(["all-lossless"])


def test_a_result_of_some_rows_has_no_curves_and_is_written_all_the_same(tmp_path: Path) -> None:
    found = made_up()
    kept = plan.of_rows(["ddim"])
    found.judged = {name: one for name, one in found.judged.items() if name in kept}
    assert not found.whole
    assert made_up().whole
    names = {path.name for path in command.write(found, tmp_path, tmp_path / "nothing")}
    assert names == {"quality.csv", "quality.md", "divergence.png"}
    page = (tmp_path / "quality.md").read_text()
    assert "| ddim |" in page
    assert "## Steps" not in page
    assert "Best scale" not in tables.claimed(found)


def test_sheets_are_written_of_kept_pictures_and_their_grades_make_a_column(tmp_path: Path, monkeypatch) -> None:
    images, labels = real_images()
    drawn = Drawn(images[:200], labels[:200], 1.0, "d")
    monkeypatch.setattr(command.drawing, "read", lambda point, count, store: drawn)
    assert command.sheets(tmp_path / "blind", "cpu") == 0
    (table,) = (tmp_path / "blind").glob("*.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{line}{int(i % 4 == 0)}" for i, line in enumerate(lines[1:]))]) + "\n")
    found = made_up()
    command.grade(found, [table], tmp_path / "blind" / "key.json")
    rated = found.by_eye["ddim-50"]
    assert (rated.pictures, rated.raters) == (200, 1)
    assert sum(one.faulty for one in found.by_eye.values()) == -(-len(lines[1:]) // 4)
    assert f"{rated.faults.value:.0%} [" in tables.rows(found)
    frame = pd.read_csv(io.StringIO(tables.csv(found)), index_col="point")
    assert frame.faulty["ddim-50"] == rated.faults.value
    (tmp_path / "q.json").write_text(found.json())
    assert record.load(tmp_path / "q.json").by_eye == found.by_eye
    del found.judged["ddim-50"]
    with pytest.raises(UsageError, match="this result has not judged"):
        command.grade(found, [table], tmp_path / "blind" / "key.json")


def test_without_kept_pictures_there_are_no_sheets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="first run: python -m bench quality"):
        command.sheets(tmp_path / "blind", "cpu", tmp_path / "nothing")
