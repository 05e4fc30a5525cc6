"""Which rows are run whole in the time there is, and in what order their parts are taken."""

import random

from bench.whole_runs import MOST_RUNS, PART_S, affordable, schedule

COST_S = {"reference": 20.0, "batched-cfg": 9.0, "ddim": 1.0, "all-lossless": 10.0, "planted": 0.1}


def test_the_reference_comes_first_then_the_telling_then_the_cheap() -> None:
    assert list(affordable(COST_S, 1000)) == ["reference", "ddim", "all-lossless", "planted", "batched-cfg"]
    assert list(affordable(COST_S, 37)) == ["reference", "ddim", "all-lossless", "planted"]
    assert list(affordable(COST_S, 26)) == ["reference", "ddim", "planted"]
    assert list(affordable(COST_S, 19)) == ["ddim", "all-lossless", "planted"]
    assert affordable(COST_S, 0.01) == {}


def test_the_reference_is_run_twice_where_that_fits() -> None:
    assert affordable(COST_S, 45) == {"reference": 2, "ddim": 5}
    assert affordable(COST_S, 39.9) == {"reference": 1, "ddim": 5, "all-lossless": 1, "planted": MOST_RUNS}


def test_the_time_for_repeats_is_reckoned_with() -> None:
    assert affordable({"ddim": 1.0}, 4.9) == {}  # five runs of it are taken
    assert affordable({"ddim": 1.0}, 5.0) == {"ddim": 5}


def test_every_part_is_taken_once_in_its_order_and_spread_over_the_whole() -> None:
    times = affordable(COST_S, 1000)
    order = schedule(times, COST_S, random.Random(3))
    for name, seconds in COST_S.items():
        mine = [(run, part) for row, run, part, _ in order if row == name]
        parts = max(1, round(seconds / PART_S))
        runs = {"reference": 2, "batched-cfg": 1, "ddim": 5, "all-lossless": 1, "planted": MOST_RUNS}[name]
        assert mine == [(run, part) for run in range(runs) for part in range(parts)]
        places = [i for i, (row, *_) in enumerate(order) if row == name]
        middle = sum(places) / len(places) / len(order)
        assert 0.35 < middle < 0.65  # drift falls on all alike
