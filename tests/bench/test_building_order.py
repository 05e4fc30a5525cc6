"""In which order each fresh process builds the rows: where a row comes to lie must not be a property of the row."""

import itertools

from bench import run
from bench.contenders import CONTENDERS, REFERENCE
from bench.workload import workload

ROWS = ["batched-cfg", "channels-last", "strided", "ddim"]


def test_each_row_is_built_before_each_other_in_half_of_the_processes(monkeypatch):
    built = []

    class Recorded:
        dead = True  # once it is built, so that nothing is timed
        died_of = None

        def __init__(self, task, number):
            self.number = number

        def obey(self, order):
            return ()

        def end(self):
            pass

    monkeypatch.setattr(run, "Worker", Recorded)
    monkeypatch.setattr(run, "in_lanes", lambda crew, order, *rest: built.extend(order(w)["rows"] for w in crew) or ())
    job = run.started(workload("quick", processes=4), "a test")
    job.rows = [REFERENCE, *ROWS]
    for name in job.rows:
        run.introduce(job, CONTENDERS[name], None)
    run.time_rows(job, job.rows, {}, print)
    assert [order[0] for order in built] == [REFERENCE] * 4
    assert all(sorted(order) == sorted(job.rows) for order in built)
    for one, other in itertools.combinations(ROWS, 2):
        assert sum(order.index(one) < order.index(other) for order in built) == 2, (one, other)


def test_the_seed_decides_the_order():
    orders = {tuple(run.building_order(ROWS, 0, seed)) for seed in range(20)}
    assert len(orders) > 5
    assert run.building_order(ROWS, 3, 1) == run.building_order(ROWS, 2, 1)[::-1]
