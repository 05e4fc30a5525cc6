"""Who builds what, and when, before rows are raced."""

from types import SimpleNamespace

from bench.contenders import REFERENCE
from bench.tune import contest
from bench.tune.asked import Asked
from bench.tune.contest import Contest
from bench.tune.journal import Journal
from bench.workload import Workload


def test_no_two_processes_begin_with_compiling_the_same_row(monkeypatch):
    orders = []
    monkeypatch.setattr(contest, "each", lambda given, _: orders.append([order["rows"] for _, order in given]) or ())
    made = Contest(Asked(Workload()), Journal(None, {}), print)
    crew = [SimpleNamespace(dead=False), SimpleNamespace(dead=False)]
    made._build(crew, [REFERENCE, "a", "b", "c"])
    made._build(crew, ["d", "e"])
    assert orders == [[[REFERENCE], [REFERENCE]], [["a", "b", "c"], ["c", "b", "a"]], [["d", "e"], ["e", "d"]]]
