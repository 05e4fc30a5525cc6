"""What counting costs: judged by the end of the interval that speaks against it, and undone for the other arm."""

import copy

import pytest
from torch import nn

from bench import overhead
from bench import tally as tally_module
from bench.__main__ import main
from bench.students_t import Interval
from bench.tally import Tally
from bench.workload import workload


@pytest.mark.parametrize(("interval", "code"), [
    ((1.002, 0.999, 1.005), 0),
    ((1.002, 0.985, 1.019), 1),  # not shown to be within 1 %
    ((1.02, 1.015, 1.025), 1),
])  # fmt: skip
def test_only_what_is_shown_to_cost_little_passes(interval, code: int, monkeypatch, capsys) -> None:
    value, low, high = interval
    monkeypatch.setattr(overhead, "measure", lambda asked, contender, pairs: Interval(value, low, high))
    assert main(["overhead"]) == code
    assert f"{(value - 1) * 100:+.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(("row", "said"), [("nonsense", "unknown row"), ("cuda-graph", "cannot run here: needs CUDA")])
def test_a_row_that_cannot_be_timed_is_refused(row: str, said: str, capsys) -> None:
    assert main(["overhead", "--row", row]) == 3
    assert said in capsys.readouterr().err


def test_while_a_tally_rests_nothing_of_it_is_left() -> None:
    class Graph:
        def replay(self):
            pass

    network, replay = nn.Identity(), Graph.replay
    tally = Tally(network, Graph)
    for _ in range(2):
        assert Graph.replay is not replay
        assert network._forward_pre_hooks
        tally.rest()
        assert Graph.replay is replay
        assert not network._forward_pre_hooks
        tally.listen()
        with tally.of("row", 1, 0):
            Graph().replay()
    assert tally.counts["row"]["replays"] == 2  # once a replay, however often it was told to listen


def test_one_loop_in_a_few_is_counted_and_every_compilation(monkeypatch) -> None:
    network, made = nn.Identity(), {"compilations": 0}
    monkeypatch.setattr(tally_module, "compilations", lambda: dict(made))
    tally = Tally(network, one_in=3)
    hooks = []
    for _ in range(7):
        with tally.of("row", 2, 1):
            hooks.append(len(network._forward_pre_hooks))
            network([0, 0])
            network([0, 0])
            made["compilations"] += 1
    assert hooks == [1, 0, 0, 1, 0, 0, 1]
    assert tally.counts["row"] == {"steps": 6, "guided": 3, "network calls of 2": 6, "compilations": 7}
    a_copy = copy.deepcopy(network)
    a_copy([0])
    tally.rest()
    assert not a_copy._forward_pre_hooks
    tally.listen()
    assert len(a_copy._forward_pre_hooks) == 1
    tally.forget("row")
    with tally.of("row", 2, 1):
        network([0, 0])
    assert tally.counts["row"] == {"steps": 2, "guided": 1, "network calls of 2": 1, "compilations": 0}


def test_slices_with_and_without_are_timed_and_compared() -> None:
    from bench.contenders import CONTENDERS

    cost = overhead.measure(workload("quick", batch=1), CONTENDERS["reference"], overhead.BLOCKS)
    assert 0.5 < cost.low < cost.value < cost.high < 2
