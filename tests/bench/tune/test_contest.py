"""Who builds what, and when, before rows are raced."""

from types import SimpleNamespace

import pytest

from bench.contenders import REFERENCE
from bench.journal import Journal
from bench.tune import contest
from bench.tune.asked import Asked
from bench.tune.contest import Contest
from bench.workload import Workload
from sampler.errors import UsageError


def test_rows_that_end_both_processes_are_out_and_others_take_their_place(monkeypatch):
    """Both workers die over one row: each is replaced once, and the search goes on."""
    made = Contest(Asked(Workload()), Journal(None, {}), lambda text: None)
    crew = made.crew = [SimpleNamespace(dead=False, number=i, end=lambda: None) for i in (0, 1)]
    fresh = [SimpleNamespace(dead=False, number=i, end=lambda: None) for i in (2, 3)]
    waiting = list(fresh)
    monkeypatch.setattr(made, "_worker", lambda: waiting.pop(0))

    def each(given, _):
        for worker, order in given:
            if "killer" in order["rows"]:
                worker.dead = True
                yield worker, {"event": "died", "doing": "killer", "message": "signal 11", "signal": 11}

    monkeypatch.setattr(contest, "each", each)
    made.built = [REFERENCE, "killer", "a"]
    made._build(crew, ["killer", "a"])
    assert made.crew == fresh
    assert not waiting
    assert made.failed == {"killer"}


def test_a_row_whose_process_was_killed_has_a_second_try_and_one_that_hangs_has_none():
    said = []
    made = Contest(Asked(Workload()), Journal(None, {}), said.append)
    killed = {"event": "died", "doing": "large", "message": "signal 9", "signal": 9}
    made._take(SimpleNamespace(number=0), killed)
    assert made.failed == set()
    assert said == ["large is tried once more in a fresh process: signal 9"]
    made._take(SimpleNamespace(number=1), killed)
    made._take(SimpleNamespace(number=2), {"event": "died", "doing": "slow", "message": "no answer in 120 s",
                                           "signal": 0, "silent_s": 121.0})  # fmt: skip
    assert {e["row"]: e["why"] for e in made.journal.of("disqualified")} == {
        "large": "its process ended: signal 9", "slow": "no answer in 120 s",
    }  # fmt: skip


def test_a_failed_reference_ends_the_search_and_is_not_kept(monkeypatch):
    made = Contest(Asked(Workload()), Journal(None, {}), lambda text: None)
    error = {"event": "error", "row": REFERENCE, "message": "out of memory"}
    monkeypatch.setattr(contest, "each", lambda given, _: [(given[0][0], error)])
    with pytest.raises(UsageError, match="the reference itself failed: out of memory"):
        made._build([SimpleNamespace(dead=False)], [REFERENCE])
    assert made.journal.events == []  # the same command may succeed


def test_no_two_processes_begin_with_compiling_the_same_row(monkeypatch):
    orders = []
    monkeypatch.setattr(contest, "each", lambda given, _: orders.append([order["rows"] for _, order in given]) or ())
    made = Contest(Asked(Workload()), Journal(None, {}), print)
    crew = [SimpleNamespace(dead=False), SimpleNamespace(dead=False)]
    made._build(crew, [REFERENCE, "a", "b", "c"])
    made._build(crew, ["d", "e"])
    assert orders == [[[REFERENCE], [REFERENCE]], [["a", "b", "c"], ["c", "b", "a"]], [["d", "e"], ["e", "d"]]]
