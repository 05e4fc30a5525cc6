"""In which order each fresh process builds the rows: where a row comes to lie must not be a property of the row."""

import itertools

from bench import run
from bench.contenders import CONTENDERS, REFERENCE
from bench.schedule import building_order
from bench.timing import time_rows
from bench.workload import workload
from tests.bench.fake_crew import FakeCrew

ROWS = ["batched-cfg", "channels-last", "strided", "ddim"]


def test_each_row_is_built_before_each_other_in_half_of_the_processes():
    job = run.started(workload("quick", processes=4, max_turns=1), "a test")
    job.rows = [REFERENCE, *ROWS]
    for name in job.rows:
        run.introduce(job, CONTENDERS[name], None)
    crew = FakeCrew(lambda worker, order: iter(()))
    time_rows(job, job.rows, {}, lambda *heard: None, print, run._patience(job, {}), crew)
    built = [order["rows"] for _, order in crew.orders("build")]
    assert [order[0] for order in built] == [REFERENCE] * 4
    assert all(sorted(order) == sorted(job.rows) for order in built)
    for one, other in itertools.combinations(ROWS, 2):
        assert sum(order.index(one) < order.index(other) for order in built) == 2, (one, other)


def test_the_seed_decides_the_order():
    orders = {tuple(building_order(ROWS, 0, seed)) for seed in range(20)}
    assert len(orders) > 5
    assert building_order(ROWS, 3, 1) == building_order(ROWS, 2, 1)[::-1]
