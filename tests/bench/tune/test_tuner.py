"""Whole searches on a network so small that they take seconds: who is never chosen, and what budgets do."""

from dataclasses import replace

import pytest

from bench.journal import Journal
from bench.tune import allowed, answer, batch, contest, finals, front, outputs, stored, tuner
from bench.tune.asked import Asked
from bench.tune.contest import Contest
from bench.tune.quality import SAME, Judge, Judged
from bench.tune.record import Tuning, load
from bench.tune.space import SEAMS
from bench.workload import workload
from sampler.errors import UsageError

pytestmark = pytest.mark.slow
TINY = "tests.bench.tune.tiny"


@pytest.fixture(scope="module")
def question() -> Asked:
    return Asked(workload("quick", model=f"{TINY}:make", batch=2), budget_s=40.0, contenders=TINY)


def only_guidance(asked: Asked) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """A space of one combination, that nothing honest is faster than those that cheat."""
    return {**dict.fromkeys(SEAMS, ("",)), "guide": ("", "batched")}, {}


@pytest.fixture(scope="module")
def tuned(question, tmp_path_factory):
    """A search among rows that compile nothing and three that must never win, and what is stored of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allowed, "labels", only_guidance)
        patch.setattr(contest, "PROCESSES", 1)
        patch.setattr(finals, "PROCESSES", 2)
        patch.setattr(finals, "LEAST_S", 5.0)
        folder = tmp_path_factory.mktemp("tune")
        said: list[str] = []
        tuning = tuner.tune(question, folder, Journal(None, {}), said.append, "python -m bench tune")
        return tuning, said, outputs.write(tuning, folder, question.name)


def test_rows_that_cheat_are_never_chosen_and_the_answer_says_why(tuned):
    tuning, said, _ = tuned
    assert tuning.choice == "batched"
    out = dict(answer.dropped(tuning))
    assert "claims to change no picture, but" in out["wrong"]
    assert "keeps" in out["leaks"]
    assert "B a step" in out["leaks"]
    assert "planted to fail after 100 steps" in out["fails-late"]
    assert any("wrong failed" in text for text in said)


def test_the_answer_is_confirmed_and_says_what_it_costs(tuned):
    tuning, _, _ = tuned
    assert tuning.confirmed
    assert tuning.speedup.value > 1
    assert tuning.memory_bytes > 0
    text = "\n".join(answer.lines(tuning))
    for part in ("times** as fast", "same pictures up to rounding", "Memory:", "First call:", "Runner-up: reference"):
        assert part in text


def test_what_is_stored_gives_the_same_answer(tuned):
    tuning, _, paths = tuned
    again = load(next(path for path in paths if path.suffix == ".json"))
    assert (again.choice, again.speedup, again.rejected) == (tuning.choice, tuning.speedup, tuning.rejected)
    assert outputs.contents(again) == outputs.contents(tuning)
    assert {path.suffix for path in paths} == {".json", ".md", ".csv", ".png"}
    text = next(path for path in paths if path.suffix == ".md").read_text()
    assert "def sampler(network" in text
    assert "python -m bench run --model" in text


def test_a_file_that_is_no_tuning_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"schema": 1}')
    with pytest.raises(UsageError, match="no whole tuning"):
        load(tmp_path / "a.json")


def test_an_impossible_time_budget_says_by_how_much(question, tmp_path):
    with pytest.raises(UsageError, match=r"time budget of 0.5 s cannot be met: \d+ s went into building .* more than"):
        tuner.tune(replace(question, budget_s=0.5), tmp_path, Journal(None, {}), lambda text: None, "")


def test_memory_picks_a_smaller_batch_or_says_what_one_image_takes(question):
    fit = batch.foreseen(replace(question, workload=replace(question.workload, batch=4)))
    three = fit.peak(3, question.workload.steps)
    enough = replace(question, memory_bytes=three * 1.01 * (1 + fit.error))
    assert batch.largest_batch(enough, fit) == 3
    assert batch.largest_batch(replace(question, memory_bytes=three * 1.01), replace(fit, error=0.1)) == 2
    alone = replace(question, memory_bytes=fit.peak(1, question.workload.steps) * 1.01)
    assert batch.largest_batch(alone, replace(fit, error=0.1)) == 1  # where one may fit it is tried
    none = replace(question, memory_bytes=fit.peak(1, question.workload.steps) / 2)
    with pytest.raises(UsageError, match=r"memory budget of .* cannot be met: one image takes .* more"):
        batch.largest_batch(none, fit)


def test_an_interrupted_search_gives_the_best_so_far_and_goes_on(question, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    honest = replace(question, contenders="")
    race, turns = Contest.race, []

    def stopped(self, rows, rounds):
        race(self, rows, rounds)
        turns.append(rows)
        if len(turns) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Contest, "race", stopped)
    journal = Journal(tmp_path / "j.jsonl", {})
    tuning = tuner.tune(honest, tmp_path, journal, lambda text: None, "")
    journal.close(finished=False)
    assert tuning.interrupted
    assert "this is the best so far" in "\n".join(answer.lines(tuning))
    assert tuning.choice in (*tuning.standing.times, "reference")
    pairs = len(tuning.events)
    resumed = Journal(tmp_path / "j.jsonl", {})
    assert len(resumed.events) == pairs
    assert Tuning(honest, {}, "", "", events=resumed.events).choice == tuning.choice
    monkeypatch.setattr(tuner, "RACE_SHARE", 0.0)  # no time is left for a race, only for the finals
    monkeypatch.setattr(finals, "PROCESSES", 2)
    monkeypatch.setattr(finals, "LEAST_S", 5.0)
    again = tuner.tune(honest, tmp_path, resumed, lambda text: None, "")
    assert again.confirmed
    assert [e for e in again.events if e["event"] == "pair"] == [e for e in tuning.events if e["event"] == "pair"]
    assert again.took_s > tuning.took_s


def test_shorter_paths_are_not_raced_and_the_answer_on_one_is_on_the_front(question, tmp_path, monkeypatch):
    paths = ("", "ddim/20", "ddim/40")
    labels = {**dict.fromkeys(SEAMS, ("",)), "guide": ("", "batched"), "path": paths}
    monkeypatch.setattr(allowed, "labels", lambda asked: (labels, {}))
    monkeypatch.setattr(Judge, "known", lambda self, row: Judged(SAME, "made up", {}))
    monkeypatch.setattr(contest, "PROCESSES", 1)
    monkeypatch.setattr(finals, "PROCESSES", 2)
    monkeypatch.setattr(finals, "LEAST_S", 5.0)
    short = replace(question, contenders="", quality="fewer-steps", budget_s=30.0)
    tuning = tuner.tune(short, tmp_path, Journal(None, {}), lambda text: None, "")
    assert list(tuning.standing.times) == ["batched"]  # a step costs the same on every path
    assert tuning.finalists[0] == "batched+ddim/40"
    assert len(set(tuning.finalists)) == len(tuning.finalists) == 2
    assert tuning.runner_up.name in tuning.finalists
    lines = {line.name: line for line in front.lines(tuning)}
    assert lines[tuning.choice].state == "chosen"
    assert lines[tuning.choice].speedup == tuning.speedup
    assert tuning.choice in {line.name for line in front.front(list(lines.values()))}
    assert outputs.contents(tuning)[".png"]


@pytest.mark.parametrize("budget", ["memory", "images"])
def test_a_whole_search_within_other_budgets(question, tmp_path, monkeypatch, budget):
    monkeypatch.setattr(allowed, "labels", only_guidance)
    monkeypatch.setattr(contest, "PROCESSES", 1)
    monkeypatch.setattr(finals, "PROCESSES", 2)
    monkeypatch.setattr(finals, "LEAST_S", 5.0)
    honest = replace(question, contenders="", budget_s=30.0)
    if budget == "memory":
        fit = batch.foreseen(honest)
        one, two = (fit.peak(size, honest.workload.steps) for size in (1, 2))
        honest = replace(honest, memory_bytes=0.2 * one + 0.8 * two)
    else:
        honest = replace(honest, images=1000)
    tuning = tuner.tune(honest, tmp_path, Journal(None, {}), lambda text: None, "")
    text = "\n".join(answer.lines(tuning))
    assert tuning.confirmed
    if budget == "memory":
        assert tuning.asked.workload.batch == 1
        assert "is the largest that does not" in text
        assert tuning.memory_bytes <= honest.memory_bytes
    else:
        assert tuning.choice == "batched"
        assert "First call:" in text


def test_fastest_finds_the_stored_answer_or_says_that_there_is_none(tuned, question, tmp_path, monkeypatch):
    tuning, _, _ = tuned
    model = question.workload.model
    none = stored.fastest(model, batch=2, results=tmp_path)
    assert (none.stored, none.variant.name) == (False, "reference")
    assert "no tuning" in none.why
    folder = tmp_path / tuning.environment["machine"] / "tune"
    outputs.write(tuning, folder, question.name)
    asked = {"batch": 2, "results": tmp_path, "contenders": TINY}
    assert not stored.fastest(model, batch=2, results=tmp_path).stored  # that is another question
    found = stored.fastest(model, **asked, fingerprint=lambda device: tuning.environment)
    assert found.stored
    assert found.variant.name == tuning.choice
    other = replace(question.workload, own=replace(question.workload.own, parameters=1))
    monkeypatch.setattr(stored, "workload", lambda *_, **__: other)
    changed = stored.fastest(model, **asked, fingerprint=lambda device: tuning.environment)
    assert not changed.stored
    assert "answers another question (own)" in changed.why
    monkeypatch.undo()
    with pytest.raises(UsageError, match="batch 'huge' is neither a number"):
        stored.fastest(model, **{**asked, "batch": "huge"})
    elsewhere = stored.fastest(model, **asked, fingerprint=lambda device: {**tuning.environment, "torch": "9.9"})
    assert not elsewhere.stored
    assert "another environment: torch" in elsewhere.why
