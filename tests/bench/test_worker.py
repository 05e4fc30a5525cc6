"""A worker in this process: what it makes of the arms it has built."""

import pytest

from bench.contenders import REFERENCE
from bench.interleave import Arm
from bench.worker import Work
from bench.workload import workload


@pytest.fixture
def work(monkeypatch) -> Work:
    monkeypatch.setattr(Arm, "time_slice", lambda *given: (0.032, 0.004))  # eight threads at work, by either clock
    job = workload("smoke", steps=20, batch=1)
    made = Work(
        {"workload": job.json(), "plant": None, "rows": [REFERENCE, "batched-cfg"], "seed": 0}, lambda **e: None
    )
    made.build()
    return made


def test_arms_are_warmed_up_by_the_wall_time_of_their_steps(work: Work) -> None:
    assert work.arms[REFERENCE].warm_steps == 2
    work.pairs(["batched-cfg"], 1, 5.0)
    assert {arm.warm_steps for arm in work.arms.values()} == {5}  # which fill 20 ms
