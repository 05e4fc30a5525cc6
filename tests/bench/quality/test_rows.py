"""Quality in the row of the speed table: what voids a speed-up, what leaves it amber, and what is only reported."""

from dataclasses import asdict, replace

import pytest

from bench import __main__
from bench.__main__ import failures, unsure
from bench.contenders import AT_FEWER_STEPS, CONTENDERS, Contender, ddim_path
from bench.environment import ROOT
from bench.quality import judged, plan, trial
from bench.quality.equivalence import EQUIVALENT, JUDGED_FROM, LOSSES, NOT_JUDGED, UNSURE, WORSE, Loss, verdict
from bench.quality.judging import Figures
from bench.report import rows_table, table, textbook_table
from bench.workload import workload
from sampler.variants import VARIANTS
from tests.bench.synthetic import first_call, measurement, pairs


def quality(row: str, lost: float, error: float) -> dict:
    losses = {name: Loss(lost if name == "kernel" else 0.0, error, 200) for name in LOSSES}
    figures = Figures(200, 200, Loss(0.1, 0.02, 200), 7.0, 0.5, 0.4, 190, 8.0, 9.0, losses)
    return {"event": "quality", "row": row, "point": "p", "digest": "d", "source": "kept", "figures": figures.json()}


def run_of(*events: dict, rows=("ddim", "textbook-strided")):
    made = [e for row in rows for e in (first_call(row, 50), *pairs(row, {0: [1.0], 1: [1.01], 2: [0.99]}))]
    return measurement(["reference", *rows], [first_call("reference", 1000), *made, *events])


@pytest.mark.parametrize(
    ("lost", "error", "verdict", "status", "exit_code", "strict"),
    [
        (0.0, 0.005, EQUIVALENT, "ok", 0, 0),
        (0.1, 0.01, UNSURE, "ok", 0, 2),
        (0.5, 0.01, WORSE, "red", 1, 1),
    ],
)
def test_a_budget_decides(lost, error, verdict, status, exit_code: int, strict: int, monkeypatch, tmp_path) -> None:
    made = run_of(quality("ddim", lost, error), quality("textbook-strided", 9.0, 0.01))
    row = made.row("ddim")
    assert (row.verdict[0], row.status) == (verdict, status)
    assert (row.speedup is None) == (status == "red")
    assert unsure(made) == (["ddim"] if verdict == UNSURE else [])
    if verdict == WORSE:
        ((name, why),) = failures(made)
        assert name == "ddim"
        assert why.startswith("layer 2 (other pictures): the loss of kernel distance")
    monkeypatch.setattr(__main__, "measure", lambda *_, **__: made)
    monkeypatch.setattr(__main__, "keep", lambda *_: (tmp_path, []))
    arguments = ["run", "--out", str(tmp_path)]
    assert __main__.main(arguments) == exit_code
    assert __main__.main([*arguments, "--strict"]) == strict


def test_what_states_no_budget_is_reported_and_never_gated() -> None:
    made = run_of(quality("ddim", 0.0, 0.01), quality("textbook-strided", 9.0, 0.01))
    assert CONTENDERS["textbook-strided"].budget is None
    row = made.row("textbook-strided")
    assert row.status == "ok"
    assert not row.amber
    assert table.quality_in_short(row).startswith("reported: 9.000 [")
    assert "9.000 [" in textbook_table.markdown(made)


def test_pictures_that_were_not_judged_are_not_taken_for_good() -> None:
    made = run_of()
    assert made.row("ddim").verdict[0] == NOT_JUDGED
    assert unsure(made) == ["ddim"]
    assert table.quality_in_short(made.row("ddim")) == "not judged"


def test_a_row_that_promises_nothing_is_judged_and_never_red() -> None:
    made = run_of(quality("all-together", 0.5, 0.005), rows=("all-together",))
    row = made.row("all-together")
    assert (row.verdict[0], row.status, failures(made)) == (WORSE, "ok", [])
    assert table.quality_in_short(row).startswith("worse: 0.500 [")


def test_every_lossy_row_that_promises_something_can_be_judged() -> None:
    for name, contender in CONTENDERS.items():
        assert contender.budget is None or not contender.lossless
        if contender.budget is not None:
            assert contender.budget.reason
            assert (ROOT / contender.budget.measured).is_file()
            device = "cuda" if contender.unavailable("cpu").startswith("needs CUDA") else "cpu"
            assert name in plan.rows(device)


def test_a_speed_run_draws_what_a_verdict_needs_or_nothing(tmp_path, monkeypatch) -> None:
    """Fewer pictures than a verdict needs would only spend the run's time."""
    monkeypatch.setattr(judged.drawing, "draw_now", lambda point, samples: trial_pictures(samples))
    events: list[dict] = []
    judged.measure(workload("quick"), ["ddim", "textbook"], 100.0, lambda **e: events.append(e), tmp_path)
    found = [e for e in events if e["event"] == "quality"]
    assert [(e["row"], e["source"]) for e in found] == [("ddim", "drawn now")]  # 1,000 steps do not fit
    figures = Figures.from_json(found[0]["figures"])
    assert figures.pictures == JUDGED_FROM
    assert verdict(figures.losses, CONTENDERS["ddim"].budget)[0] != NOT_JUDGED
    events.clear()
    job = workload("quick")
    judged.measure(job, ["ddim"], job.quality_s, lambda **e: events.append(e), tmp_path)
    assert "quality" not in {e["event"] for e in events}  # 50 steps take longer than a tenth of the run
    assert {job.quality_s / job.budget_s, workload("full").quality_s / workload("full").budget_s} == {0.1}


def trial_pictures(samples: int):
    seen = trial.shipped("100 steps").first(samples)
    return seen.images, seen.set.labels


MINE = Contender("mine", "ten steps", VARIANTS["batched-cfg"], ddim_path(1 / 100), lossless=False,
                 budget=replace(AT_FEWER_STEPS, reason="mine"))  # fmt: skip


@pytest.mark.parametrize(("lost", "verdict", "status"), [(0.0, EQUIVALENT, "ok"), (0.5, WORSE, "red")])
def test_a_row_of_ones_own_is_held_to_the_budget_that_it_states(lost: float, verdict: str, status: str) -> None:
    said = {"event": "contender", "row": "mine", "lossless": False, "changes": "ten steps", "of": "my rows.py",
            "budget": asdict(MINE.budget)}  # fmt: skip
    made = run_of(said, quality("mine", lost, 0.005), rows=("mine",))
    row = made.row("mine")
    assert row.budget == MINE.budget
    assert (row.verdict[0], row.status) == (verdict, status)
    assert rows_table.command_line(row) == "python -m bench run --contenders 'my rows.py' --rows mine"
    made.events[-2]["budget"] = None
    assert run_of(said, quality("mine", lost, 0.005), rows=("mine",)).row("mine").verdict == ("", "")


def test_pictures_of_a_row_of_ones_own_are_drawn_by_it_and_judged(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(judged, "JUDGED_FROM", 50)
    events: list[dict] = []
    for contender in (MINE, replace(MINE, name="same", lossless=True, budget=None)):
        judged.measure_own(workload("quick"), contender, 60.0, lambda **e: events.append(e), tmp_path)
    (found,) = [e for e in events if e["event"] == "quality"]
    figures = Figures.from_json(found["figures"])
    assert (found["row"], figures.pictures) == ("mine", 50)
    assert figures.losses["kernel"].value > 0
    judged.measure_own(workload("quick"), MINE, 1.0, lambda **e: pytest.fail("there was no time"), tmp_path)
    judged.measure_own(workload("quick", steps=20), MINE, 60.0, lambda **e: pytest.fail("not judgeable"), tmp_path)


@pytest.mark.parametrize("other", [{"steps": 20}, {"guidance": 1.0}, {"model": "cifar10-size"}])
def test_a_workload_without_pictures_to_compare_is_not_judged(other: dict, tmp_path) -> None:
    events: list[dict] = []
    asked = replace(workload("quick"), **other)
    judged.measure(asked, ["ddim"], 100.0, lambda **e: events.append(e), tmp_path)
    assert judged.judgeable(asked)
    assert events == []
