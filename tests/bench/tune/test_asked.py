"""How a question is read and named, and what cannot be asked."""

import re
from dataclasses import replace

import pytest
import torch

from bench.quality import judged
from bench.tune import asked, space, tuner
from bench.tune.allowed import forbidden, labels, product
from bench.tune.asked import Asked
from bench.tune.command import asked_of
from bench.tune.journal import Journal
from bench.tune.quality import SAME, Judge, Judged, point_name
from bench.tune.space import choice_of
from bench.tune.tuner import _affordable, _further
from bench.workload import Workload
from sampler.errors import UsageError

QUESTION = Asked(Workload())


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 * 2**30), ("500 MB", 500e6), ("1024", 1024), ("1.5kib", 1536)])
def test_sizes(text, size):
    assert asked.bytes_of(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90s", 90), ("90", 90), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert asked.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: asked.bytes_of("8 apples"), "memory '8 apples' is not understood"),
        (lambda: asked.seconds_of("soon"), "budget 'soon' is not understood"),
        (lambda: replace(QUESTION, quality="-2%"), "quality '-2%' is none of lossless, equal-steps, fewer"),
        (lambda: replace(QUESTION, quality="0%"), "quality '0%'"),
        (lambda: replace(QUESTION, images=0), "images = 0"),
        (lambda: replace(QUESTION, budget_s=0.0), "budget = 0 s"),
        (lambda: replace(QUESTION, memory_bytes=0.0), "memory = 0 bytes"),
        (lambda: choice_of("batched+frosen"), "did you mean 'batched"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_a_sentence(wrong, reason):
    with pytest.raises(UsageError, match=reason):
        wrong()


def test_two_questions_never_share_a_name():
    others = [
        replace(QUESTION, quality="2%"), replace(QUESTION, memory_bytes=2.0**30), replace(QUESTION, images=100),
        replace(QUESTION, batch="max"), QUESTION.at(8),
        *(replace(QUESTION, workload=replace(Workload(), **change))
          for change in ({"seed": 1}, {"steps": 500}, {"guidance": 2.0}, {"threads": 2})),
    ]  # fmt: skip
    names = [question.name for question in (QUESTION, *others)]
    assert len(set(names)) == len(names), names
    assert replace(QUESTION, budget_s=5.0).name == QUESTION.name  # more time asks nothing else


def test_a_question_is_stored_whole():
    question = replace(QUESTION, quality="2%", images=7)
    assert Asked.from_json(question.json()) == question


def test_a_tight_quality_leaves_only_what_is_lossless():
    allowed, left_out = labels(QUESTION)
    rows = [space.contender(choice) for choice in product(allowed)]
    assert len(rows) >= 8
    assert all(row.lossless for row in rows)
    assert "lossless" in left_out["limited"]
    assert left_out["graph"] == "needs CUDA"


def test_what_cannot_be_judged_is_left_out():
    allowed, left_out = labels(replace(QUESTION, quality="2%", workload=replace(Workload(), guidance=2.0)))
    assert allowed["precision"] == ("",)
    assert "cannot be judged" in left_out["limited"]


def test_without_guidance_there_is_nothing_to_guide():
    allowed, left_out = labels(replace(QUESTION, quality="equal-steps", workload=replace(Workload(), guidance=1.0)))
    assert (allowed["guide"], allowed["guided_between"]) == (("",), ("",))
    assert "nothing to guide" in left_out["batched"]


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    allowed, left_out = labels(QUESTION)
    assert allowed["runtime"] == ("",)
    assert left_out["frozen"] == "there is no C++ compiler"


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("batched+frozen", "ancestral-1000"), ("bf16+batched+frozen", "half-1000"),
        ("limited+ddim/20", "limited-ddim-50"),
        ("bf16+limited", "half-limited-1000"), ("batched+ddim/20", "ddim-50"), ("ancestral/2", "ancestral-500"),
        ("autocast-bf16", "autocast-1000"), ("bf16+ddim/20", "half-ddim-50"),
    ],
)  # fmt: skip
def test_combinations_that_draw_the_same_pictures_share_them(name, pictures):
    assert point_name(choice_of(name), 1000) == pictures


def test_what_loses_too_much_on_every_path_is_not_raced(monkeypatch, tmp_path):
    question = replace(QUESTION, quality="equal-steps")
    judge = Judge(question, tmp_path)
    wide = Judged("WORSE", "the loss is too large", {})
    monkeypatch.setattr(judge, "known", lambda row: wide if "limited" in row.name else Judged(SAME, "", {}))
    names = {space.name_of(choice) for choice in forbidden(labels(question)[0], judge, 0.0)}
    assert "limited" in names
    assert "batched+limited" in names
    assert "bf16" not in names


def test_what_a_picture_takes_is_timed_once_a_search_and_only_where_one_may_be_drawn(monkeypatch):
    threads, journal = torch.get_num_threads(), Journal(None, {})
    found = tuner._picture_step_s(replace(QUESTION, quality="equal-steps"), journal)
    assert 0 < found < 1
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(tuner, "picture_step_s", lambda device: 99.0)
    assert tuner._picture_step_s(replace(QUESTION, quality="equal-steps"), journal) == found
    assert tuner._picture_step_s(QUESTION, Journal(None, {})) == judged.PICTURE_STEP_S


def test_kept_pictures_of_any_combination_are_looked_for_once(monkeypatch, tmp_path):
    judge, looked = Judge(replace(QUESTION, quality="equal-steps"), tmp_path), []
    monkeypatch.setattr(judged, "pictures_of", lambda point, store: looked.append(point.name))
    for name in ("autocast-bf16+limited", "batched+frozen+limited", "autocast-bf16+batched+limited"):
        assert judge.known(space.contender(choice_of(name))) is None
    assert looked == ["autocast-limited-1000", "limited-1000"]


def test_what_could_not_be_drawn_in_the_time_is_not_raced(monkeypatch, tmp_path):
    question = replace(QUESTION, quality="fewer-steps")
    judge = Judge(question, tmp_path)
    monkeypatch.setattr(judge, "known", lambda row: Judged(SAME, "", {}) if row.lossless else None)
    full, short = (judge.foreseen(space.contender(choice_of(n)), 1e9) for n in ("limited", "limited+ddim/20"))
    assert full is short is None  # they could be drawn in that time
    _, _, full_s = judge._to_draw(space.contender(choice_of("limited")))
    _, _, short_s = judge._to_draw(space.contender(choice_of("limited+ddim/20")))
    assert full_s == pytest.approx(10 * short_s)  # a twentieth of the steps, twice the pictures
    assert "not drawn" in judge.foreseen(space.contender(choice_of("limited")), full_s * 0.9).text
    _, _, faster_s = Judge(question, tmp_path, picture_step_s=judge.picture_step_s / 4)._to_draw(
        space.contender(choice_of("limited"))
    )
    assert faster_s == pytest.approx(full_s / 4)
    only_full = {**labels(question)[0], "path": ("",)}
    assert space.choice_of("limited") in forbidden(only_full, judge, full_s * 0.9)
    assert space.choice_of("limited") not in forbidden(only_full, judge, full_s * 1.1)
    assert space.choice_of("batched") not in forbidden(only_full, judge, 0.0)
    with_short = {**only_full, "path": ("", "ddim/20")}
    assert space.choice_of("limited") not in forbidden(with_short, judge, short_s * 1.1)


@pytest.mark.parametrize("budget", [["--memory", "1GiB"], ["--images", "9"], ["--batch", "latency"]])
@pytest.mark.parametrize("instead", ["--exhaustive", "--check"])
def test_everything_is_measured_at_one_batch_by_the_time_of_its_steps(budget, instead, tmp_path):
    from bench.__main__ import _parser
    from bench.tune.command import run

    with pytest.raises(UsageError, match="a batch of a number, and neither --memory nor --images"):
        run(_parser().parse_args(["tune", instead, *budget, "--out", str(tmp_path)]))


def test_further_rows_make_another_question_and_take_no_name_of_the_seams(tmp_path):
    named = replace(QUESTION, contenders="my/rows.py").name
    assert re.fullmatch(re.escape(QUESTION.name) + r"_my-rows\.py-[0-9a-f]{8}", named)
    taken = tmp_path / "taken.py"
    taken.write_text("from bench.tune.space import CONTENDERS as ALL\nCONTENDERS = [ALL[0]]\n")
    question = replace(QUESTION, contenders=str(taken))
    with pytest.raises(UsageError, match="is the name of a combination of the seams"):
        _further(question, Judge(question, tmp_path), {})


def test_what_is_too_dear_to_build_does_not_keep_out_what_is_cheap():
    journal = Journal(None, {})
    journal.add({"event": "first_call", "row": "frozen", "seconds": 100.0, "compiled_now": True})
    rows = ["batched+frozen", "bf16", "channels-last", "native"]
    assert _affordable(rows, journal, 8.0, 2) == ["bf16", "channels-last"]
    assert _affordable(rows, journal, 60.0, 2) == ["batched+frozen", "bf16", "channels-last"]
    # the second process compiled it too, for no cache serves what is frozen
    journal.add({"event": "first_call", "row": "frozen", "seconds": 30.0, "compiled_now": True})
    assert _affordable(rows, journal, 60.0, 2) == ["bf16", "channels-last", "native"]


def test_max_on_a_cpu_needs_a_budget():
    from bench.__main__ import _parser

    with pytest.raises(UsageError, match="--batch max on a CPU needs a --memory budget"):
        asked_of(_parser().parse_args(["tune", "--batch", "max"]))
    with pytest.raises(UsageError, match="batch 'many' is neither a number"):
        asked_of(_parser().parse_args(["tune", "--batch", "many"]))
