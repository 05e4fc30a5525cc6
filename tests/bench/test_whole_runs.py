"""Which rows are run whole in the time there is, and in what order their parts are taken."""

import random
from types import SimpleNamespace

import pytest
import torch

from bench.whole_runs import MOST_RUNS, PART_S, WholeRuns, affordable, schedule

STEPS = {"reference": 1000, "batched-cfg": 1000, "ddim": 50, "all-lossless": 1000, "planted": 50}
COST_S = {"reference": 20.0, "batched-cfg": 9.0, "ddim": 1.0, "all-lossless": 10.0, "planted": 0.1}


def test_the_telling_come_first_then_the_cheap_and_the_reference_as_often_as_all_together() -> None:
    assert affordable(COST_S, 1000) == {"reference": 2, "ddim": 3, "all-lossless": 1, "planted": 10, "batched-cfg": 1}
    assert affordable(COST_S, 37) == {"reference": 1, "ddim": 3, "all-lossless": 1, "planted": 10}
    assert affordable(COST_S, 33) == {"reference": 1, "ddim": 3, "all-lossless": 1}
    assert affordable(COST_S, 24) == {"reference": 1, "ddim": 3, "planted": MOST_RUNS}
    assert affordable(COST_S, 19) == {"ddim": 3, "all-lossless": 1, "planted": MOST_RUNS}  # no ratios, but pictures
    assert affordable({"ddim": 1.0}, 100) == {"ddim": 3}
    assert affordable(COST_S, 0.01) == {}


def test_the_time_for_repeats_and_for_the_reference_beside_them_is_reckoned_with() -> None:
    cost_s = {"reference": 2.0, "ddim": 1.0}
    assert affordable(cost_s, 6.9) == {"reference": 1}
    assert affordable(cost_s, 7.0) == {"reference": 2, "ddim": 3}  # three runs of it, and two of the reference


def test_every_part_is_taken_once_in_its_order_and_spread_over_the_whole() -> None:
    times = affordable(COST_S, 1000)
    order = schedule(times, COST_S, STEPS, random.Random(3))
    for name, seconds in COST_S.items():
        mine = [(run, part) for row, run, part, _ in order if row == name]
        parts = max(1, round(seconds / PART_S))
        assert mine == [(run, part) for run in range(times[name]) for part in range(parts)]
        places = [i for i, (row, *_) in enumerate(order) if row == name]
        middle = sum(places) / len(places) / len(order)
        assert 0.35 < middle < 0.65  # drift falls on all alike


@pytest.mark.parametrize("seed", range(5))
def test_every_part_of_a_row_has_the_reference_on_both_sides(seed: int) -> None:
    order = [row for row, *_ in schedule(affordable(COST_S, 1000), COST_S, STEPS, random.Random(seed))]
    assert order[0] == order[-1] == "reference"
    others = [i for i, row in enumerate(order) if row != "reference"]
    assert sum(order[i - 1] == order[i + 1] == "reference" for i in others) > 0.9 * len(others)


def test_a_part_takes_one_step_at_least() -> None:
    """Steps longer than a part: as many parts as there are steps, and none without one."""
    runs, events, how = whole_runs(0.3, reference=Arm(20), ddim=Arm(3))
    runs.advance(1.0, *how)
    taken = [e for e in events if e["event"] == "segment"]
    assert {e["steps"] for e in taken} == {1}
    assert sum(e["row"] == "ddim" for e in taken) == 3 * runs.chosen["ddim"]


def test_no_row_but_the_reference() -> None:
    assert [row for row, *_ in schedule({"reference": 1}, COST_S, STEPS, random.Random(0))] == ["reference"] * 133


class Arm:
    """Adds one a step, so that the state counts them; may raise at a position."""

    def __init__(self, steps: int, raises_at: int = -1):
        self.steps, self.raises_at = steps, raises_at

    def noise(self, seed: int, batch: int) -> None: ...

    def advance(self, x: torch.Tensor, positions: list[int], noise: None) -> torch.Tensor:
        assert positions[0] == int(x) % 1000  # goes on where it was
        if self.raises_at in positions:
            raise RuntimeError("there")
        return x + len(positions)


def whole_runs(seconds: float = 0.007, /, **arms: Arm) -> tuple[WholeRuns, list[dict], tuple]:
    stage = SimpleNamespace(x=torch.zeros(()), workload=SimpleNamespace(seed=0), batch=4,
                            model=SimpleNamespace(pictures=lambda x: x.expand(1, 1, 1, 1)))  # fmt: skip
    events: list[dict] = []
    clock = SimpleNamespace(mark=lambda: 0, between=lambda a, b: SimpleNamespace(decisive_s=1.0, wall_s=1.0))
    telemetry = SimpleNamespace(sample=lambda: 0, between=lambda a, b, s: {})
    step_s = dict.fromkeys(arms, seconds)
    made = WholeRuns(stage, arms, step_s, 100.0, random.Random(0))  # type: ignore[arg-type]
    return made, events, (clock, lambda **event: events.append(event), telemetry)


def test_whole_runs_are_gone_on_with_until_the_share_and_shown_at_the_end() -> None:
    runs, events, how = whole_runs(reference=Arm(1000), ddim=Arm(50))
    parts = len(runs.order)
    for until in (0.0, 0.3, 0.3, 0.2, 0.8):
        runs.advance(until, *how)
    assert sum(e["event"] == "segment" for e in events) == runs.done == round(0.8 * parts)
    assert not [e for e in events if e["event"] == "pictures"]
    runs.advance(1.0, *how)
    runs.advance(1.0, *how)
    assert {e["visit"] for e in events if e["event"] == "segment"} == {1, 2, 3}  # a visit that took nothing is none
    taken = [e for e in events if e["event"] == "segment"]
    assert len(taken) == parts
    assert sum(e["steps"] for e in taken if e["row"] == "reference") == 1000
    assert [e["row"] for e in events if e["event"] == "pictures"] == list(runs.chosen)


def test_a_row_that_raises_half_way_is_left_out_of_the_rest() -> None:
    runs, events, how = whole_runs(reference=Arm(1000), ddim=Arm(50, raises_at=30))
    runs.advance(1.0, *how)
    (error,) = [e for e in events if e["event"] == "error"]
    assert (error["row"], "there" in error["message"]) == ("ddim", True)
    assert [e["row"] for e in events if e["event"] == "pictures"] == ["reference"]
