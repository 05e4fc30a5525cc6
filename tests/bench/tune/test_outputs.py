"""What is made of a tuning: the answer's words, the front, the page's section; and answers held against everything."""

import math
import re
from dataclasses import replace

import pytest

from bench.__main__ import _parser
from bench.report import figures, page
from bench.report.sources import Beside, beside
from bench.students_t import Interval
from bench.tune import answer, command, exhaustive, front, outputs, record
from bench.tune.asked import Asked
from bench.tune.quality import SAME, Judged
from bench.tune.record import Tuning
from bench.tune.space import BY_NAME, name_of, with_value
from bench.workload import Workload
from sampler.errors import UsageError
from tests.bench import synthetic

QUICK, NEXT, SLOW, CHEAT = "batched+frozen", "batched+compiled", "channels-last", "cheat"
MEMORY = {
    "event": "memory",
    "phase": "steady",
    "live_after": 0,
    "held": 0,
    "graph_pools": 0,
    "driver": None,
    "parts": {},
}


def tuned(
    made_up, ratios=((0.5, 0.49, 0.51), (0.6, 0.61, 0.59)), seed: int = 0, images: int | None = None, next_raced=0.6
) -> Tuning:
    """A search in which QUICK won over NEXT, SLOW was dropped, and CHEAT failed."""
    race = made_up({QUICK: 0.5, NEXT: next_raced, SLOW: 1.2, CHEAT: 0.1}, unit_s=0.01).enter("reference", SLOW, CHEAT)
    race.enter(NEXT, seconds=20.0, compiled=True).enter(QUICK, seconds=37.0, compiled=True).race(
        [QUICK, NEXT, SLOW, CHEAT], 20
    )
    race.events.append({"event": "disqualified", "row": CHEAT, "why": "keeps 4,096 B a step"})
    race.events += race.standing().losers()
    calls = [synthetic.first_call("reference", 1000, 0.1), synthetic.first_call(QUICK, 1000, 8.0, True),
             synthetic.first_call(NEXT, 1000, 1.0)]  # fmt: skip
    claims = [{"event": "contender", "row": row, "lossless": True, "changes": ""} for row in (QUICK, NEXT)]
    memory = [{**MEMORY, "row": row, "live_peak": size} for row, size in (("reference", 2**20), (QUICK, 40 * 2**20))]
    timed = [pair for row, values in zip((QUICK, NEXT), ratios, strict=True)
             for pair in synthetic.pairs(row, {i: [ratio] for i, ratio in enumerate(values)})]  # fmt: skip
    finals = synthetic.measurement(["reference", QUICK, NEXT], [*claims, *calls, *memory, *timed])
    same = Judged(SAME, "it changes no picture", {})
    environment = {**synthetic.ENVIRONMENT, "os": "made up"}
    return Tuning(
        Asked(replace(Workload(), seed=seed), images=images), environment, "2026-01-02T03:04:05Z", "made up",
        space=19, left_out={"bf16": "changes pictures"}, events=race.events, finals=finals,
        judged={QUICK: same, NEXT: same}, finalists=[QUICK, NEXT], took_s=100.0,
    )  # fmt: skip


def test_the_answer_names_what_it_gains_and_costs_and_who_lost(made_up):
    tuning = tuned(made_up)
    text = "\n".join(answer.lines(tuning))
    assert tuning.choice == QUICK
    assert f"**{QUICK}**: **2.00 [" in text
    assert "Memory: 40.0 MiB at most" in text
    assert "First call: 37.0 s (compiled)" in text  # the race's, when no cache served it
    # an image takes 2.5 s and 1.25 s, the reference's first call 1 s: 36 s are saved by 29 of them
    assert "pays from 29 images on" in text
    assert f"Runner-up: {NEXT}; **{QUICK}** is 1.20 [" in text
    # the longest first call of every row: a cache served the inspection's
    assert f"Advice: {NEXT} compiles for 20 s and pays from 19 images on." in text
    out = dict(answer.dropped(tuning))
    assert out[CHEAT] == "keeps 4,096 B a step"
    assert "slower, against" in out[SLOW]
    assert out["bf16"] == "changes pictures"
    assert "reference" not in out


def test_two_that_cannot_be_told_apart_are_called_so(made_up):
    tuning = tuned(made_up, ((0.5, 0.52, 0.48), (0.51, 0.49, 0.52)))
    assert "cannot be told apart" in "\n".join(answer.lines(tuning))


def test_what_the_race_saw_at_another_minute_counts_beside_the_finals(made_up):
    """The finals' processes agree with each other that NEXT is far behind; in the race the two were level."""
    of_finals = ((0.5, 0.5, 0.5), (0.53, 0.53, 0.53))
    tuning = tuned(made_up, of_finals)
    level = made_up({QUICK: 0.5, NEXT: 0.5}, unit_s=0.01).enter("reference", QUICK, NEXT).race([QUICK, NEXT], 20)
    tuning = replace(tuning, events=level.events)
    processes = {e["process"] for e in level.events if e["event"] == "pair"}
    assert tuning.finals.row(NEXT).speedup.high < tuning.finals.row(QUICK).speedup.low
    assert len(tuning.row.log_ratios()) == 3 + len(processes)  # each counts as one, and none hides another
    assert tuning.choice == QUICK
    assert tuning.runner_up.speedup.overlaps(tuning.speedup)
    assert tuning.tied


def test_a_row_on_a_shorter_path_was_not_raced(made_up):
    """Its steps were raced on another path; only the finals took its own."""
    shorter = name_of(with_value(BY_NAME[QUICK], "path", "ddim/20"))
    raced = tuned(made_up)
    events = [{**e, "row": shorter} if e.get("row") == QUICK else e for e in raced.finals.events]
    tuning = replace(raced, finals=synthetic.measurement(["reference", shorter], events), finalists=[shorter])
    assert record.raced(shorter) == QUICK
    assert len(tuning.timed.row(shorter).log_ratios()) == 3


def test_nothing_is_turned_on_where_nothing_is_shown_to_be_faster(made_up):
    tuning = tuned(made_up, ((0.98, 1.04, 1.0), (1.2, 1.2, 1.2)))
    assert tuning.choice == "reference"
    assert "nothing is shown to be faster" in answer.lines(tuning)[0]


def test_few_images_do_not_pay_a_long_first_call(made_up):
    few, many = tuned(made_up, images=4), tuned(made_up, images=400)
    assert few.choice == "reference"  # 37 s to be ready, and 5 s less for four images
    assert many.choice == QUICK


def test_with_an_end_of_images_the_answer_says_what_decided(made_up):
    few, many = ("\n".join(answer.lines(tuned(made_up, images=images))) for images in (4, 400))
    # slower, and yet the cheaper
    assert re.search(rf"Runner-up: {re.escape(NEXT)}; \*\*reference\*\* is 0\.(59|60)\d \[", few)
    assert "cannot be told apart" not in few
    # 0.01 s a step, 1,000 of them for four images; 37 s and 20 s to be ready; 1 s for the reference
    assert "4 images take 11 s with it and 26 s with the other, first calls included" in few
    assert re.search(r"400 images take 5[34]\d s with it and 6[123]\d s with the other", many)


def test_a_gain_that_is_not_shown_is_no_answer_with_an_end_of_images_either(made_up):
    tuning = tuned(made_up, ((0.98, 1.04, 0.99), (1.2, 1.2, 1.2)), images=10**6)
    assert tuning.choice == "reference"


def test_few_pairs_leave_an_end_open_and_stop_nothing(made_up):
    few = made_up({SLOW: 1.2, QUICK: 0.5}).enter("reference", SLOW, QUICK).race([SLOW, QUICK], 4)
    tuning = replace(tuned(made_up), events=few.events)
    assert tuning.standing.speedup(SLOW).high == math.inf
    assert "∞" in front.markdown(tuning)
    assert outputs.contents(tuning)[".png"]
    stopped = replace(tuning, finals=None, finalists=[], interrupted=True)
    assert "this is the best so far" in answer.terminal(stopped)


def test_the_front_holds_what_no_other_beats(made_up):
    lines = front.lines(tuned(made_up))
    assert {line.name for line in front.front(lines)} == {QUICK, NEXT, "reference"}
    assert CHEAT not in {line.name for line in lines}
    assert all(line.speedup.low <= line.speedup.value <= line.speedup.high for line in lines)
    frame = front.frame(tuned(made_up))
    assert list(frame[frame.on_front].combination) == [QUICK, NEXT, "reference"]


def test_the_page_shows_the_answer_and_says_what_fills_it(made_up):
    tuning = tuned(made_up)
    made = synthetic.everything()
    plots = figures.plots(made, Beside())
    with_it = page.html(made, Beside(tunings=(tuning,)), plots)
    assert "Runner-up: batched+compiled" in with_it
    assert "def sampler(network" in with_it
    assert "python -m bench tune" in page.html(made, Beside(), plots)


def test_a_machines_answers_are_read_for_its_page_but_not_other_seeds(made_up, tmp_path):
    folder = tmp_path / "tune"
    for seed in (0, 3):
        tuning = tuned(made_up, seed=seed)
        outputs.write(tuning, folder, tuning.asked.name)
    (folder / "fashion-mnist_batch-4_lossless-exhaustive.json.gz").write_text("{}")
    assert len(list(folder.glob("*.json"))) == 2
    assert [t.asked.workload.seed for t in beside(tmp_path).tunings] == [0]
    (folder / "broken.json").write_text("{")
    found = beside(tmp_path)
    assert found.tunings == ()
    assert "broken.json" in found.broken[0]


def everything(costs: dict[str, float]):
    """As if every combination had been measured, in 1,000 s."""
    events = [pair for row, cost in costs.items() for pair in synthetic.pairs(row, {p: [cost] for p in range(3)})]
    events += [{"event": "contender", "row": row, "lossless": True, "changes": ""} for row in costs]
    return synthetic.measurement(["reference", *costs], events, took_s=1000.0)


def test_the_answer_is_the_first_that_is_shown_to_be_faster(made_up):
    """The cheaper of two was disturbed in one process, so that its interval holds 1."""
    tuning = tuned(made_up, ratios=((0.3, 0.3, 1.2), (0.6, 0.61, 0.59)))
    assert tuning.ordered[0].name == QUICK
    assert tuning.choice == NEXT
    assert tuning.runner_up is not None
    assert tuning.runner_up.name == QUICK


def test_what_a_further_row_claims_is_not_believed_before_its_inspection(made_up):
    """Ctrl-C while the finals inspect: a row of somebody's that claims to change no picture was not looked at yet."""
    tuning = tuned(made_up)
    leaks = made_up({QUICK: 0.5, "leaks": 0.3}, unit_s=0.01).enter("reference", QUICK, "leaks")
    leaks.race([QUICK, "leaks"], 20)
    same = Judged(SAME, "it claims to change no picture", {})
    stopped = replace(tuning, finals=None, finalists=[], interrupted=True, events=leaks.events,
                      judged={"leaks": same, QUICK: same})  # fmt: skip
    assert stopped.standing.best == "leaks"
    assert stopped.choice == QUICK


def test_a_search_that_took_longer_than_its_budget_says_so(made_up):
    assert not any("more than its budget" in line for line in answer.lines(tuned(made_up)))
    late = replace(tuned(made_up), took_s=640.0)
    assert "It took 640 s, 40 s more than its budget." in answer.lines(late)


def test_everything_is_measured_without_whole_runs_and_pictures(monkeypatch, tmp_path):
    asked_for = []
    monkeypatch.setattr(exhaustive, "measure", lambda job, rows, *_: asked_for.append((job, rows)))
    exhaustive.measure_all(Asked(Workload(), budget_s=7.0), tmp_path, print, "made up")
    ((job, rows),) = asked_for
    assert (job.whole_share, job.quality_s, job.batch_axis, job.budget_s) == (0.0, 0.0, (), 7.0)
    assert rows[0] == "reference"
    assert {QUICK, NEXT, SLOW, "channels-last+batched+frozen"} < set(rows)
    assert len(set(rows)) == len(rows) == 20
    assert not any("bf16" in row for row in rows)


def test_answers_are_held_against_everything(made_up):
    tunings = [tuned(made_up, seed=seed) for seed in range(5)]
    good = exhaustive.check(everything({QUICK: 0.5, NEXT: 0.6, SLOW: 1.2}), tunings)
    assert all(one.passes for one in good)
    assert exhaustive.agree(good)
    assert good[0].share == pytest.approx(0.1)
    bad = exhaustive.check(everything({QUICK: 0.5, NEXT: 0.48, SLOW: 1.2}), tunings)
    assert not bad[0].passes
    assert bad[0].off.value == pytest.approx(0.5 / 0.48 - 1)
    assert "| NO |" in exhaustive.table(bad, everything({QUICK: 0.5}))
    slow = [replace(t, took_s=300.0) for t in tunings]
    assert not any(one.passes for one in exhaustive.check(everything({QUICK: 0.5}), slow))


def test_everything_is_kept_compressed_and_read_again_to_be_checked_against(made_up, monkeypatch, tmp_path, capsys):
    made = everything({QUICK: 0.5, NEXT: 0.6, SLOW: 1.2})
    monkeypatch.setattr(exhaustive, "measure_all", lambda *_: made)
    asked = ["tune", "--out", str(tmp_path)]

    def run(*more: str) -> int:
        arguments = _parser().parse_args([*asked, *more])
        return arguments.do(arguments)

    assert run("--exhaustive") == 0
    (kept,) = tmp_path.glob("*/tune/*")
    assert exhaustive.stored(kept).json() == made.json()
    for seed in range(5):
        outputs.write(tuned(made_up, seed=seed), kept.parent, tuned(made_up, seed=seed).asked.name)
    assert run("--check") == 0
    written = (kept.parent / "fashion-mnist_batch-4_lossless-check.md").read_text()
    assert written in capsys.readouterr().out
    assert written.count("| yes |") == 5
    kept.write_bytes(kept.read_bytes()[:-20])
    with pytest.raises(UsageError, match="is not a whole result file"):
        run("--check")


def test_seeds_disagree_unless_the_runner_ups_interval_overlaps(made_up):
    tied = exhaustive.Checked(0, QUICK, Interval(0.0, 0.0, 0.0), 0.1, NEXT, True, True)
    apart = replace(tied, tied=False, overlaps=False)
    other = replace(tied, choice=NEXT, runner_up=QUICK, tied=False)
    assert exhaustive.agree([apart, apart, apart])
    assert exhaustive.agree([apart, apart, other])
    assert exhaustive.agree([apart, apart, replace(other, tied=True, overlaps=False)])
    assert not exhaustive.agree([apart, apart, replace(other, overlaps=False)])


@pytest.mark.parametrize(
    ("ratios", "next_raced", "near"),
    [
        (((0.5, 0.52, 0.48), (0.51, 0.49, 0.52)), 0.6, " (tied)"),
        # always 4 % slower, in each process
        (((0.50, 0.55, 0.45), (0.52, 0.572, 0.468)), 0.52, " (intervals overlap)"),
        (((0.50, 0.505, 0.495), (0.71, 0.70, 0.69)), 0.7, ""),
    ],
)
def test_how_near_the_runner_up_is(made_up, ratios, next_raced, near):
    found_by = tuned(made_up, ratios=ratios, next_raced=next_raced)
    (found,) = exhaustive.check(everything({QUICK: 0.5, NEXT: 0.6}), [found_by])
    assert (found.choice, found.runner_up) == (QUICK, NEXT)
    assert exhaustive._near(found) == near


def test_what_is_missing_is_named(tmp_path):
    question = Asked(Workload())
    with pytest.raises(UsageError, match="no answer with --seed 0, 1, 2, 3, 4 is stored"):
        exhaustive.answers(question, tmp_path)
    with pytest.raises(UsageError, match="--exhaustive` measures it"):
        exhaustive.stored(tmp_path / "none.json")
    assert record.answers(tmp_path / "nowhere") == []


def test_an_answer_that_could_not_be_written_can_be_had_again(made_up, monkeypatch, tmp_path):
    def search(question, results, journal, *_):
        journal.add({"event": "first_call"})
        return tuned(made_up)

    def refuse(*_):
        raise OSError("no space left")

    monkeypatch.setattr(command, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(command, "tune", search)
    arguments = _parser().parse_args(["tune", "--out", str(tmp_path)])
    with monkeypatch.context() as full:
        full.setattr(outputs, "write", refuse)
        with pytest.raises(OSError, match="no space left"):
            arguments.do(arguments)
    assert list((tmp_path / "scratch").iterdir())
    with monkeypatch.context() as stopped:
        stopped.setattr(command, "tune", lambda *_: replace(tuned(made_up), interrupted=True))
        assert arguments.do(arguments) == 130
    assert list((tmp_path / "scratch").iterdir())
    assert not list(tmp_path.glob("*/tune/*"))
    assert arguments.do(arguments) == 0
    assert not list((tmp_path / "scratch").iterdir())
    assert len(list(tmp_path.glob("*/tune/*"))) == 4


def test_an_interval_without_an_end_is_written_as_such(made_up):
    tuning = tuned(made_up)
    tuning.events.append({"event": "dropped", "row": SLOW, "by": QUICK, "slower": [0.2, -math.inf, math.inf]})
    assert "costs more, its first call included" in dict(answer.dropped(tuning))[SLOW]
