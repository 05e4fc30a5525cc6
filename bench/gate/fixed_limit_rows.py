"""What `bench.gate.fixed_limit` lets pytest-benchmark measure: a step of the sampler, with a slowdown planted."""

import os

import pytest
import torch

from bench import environment
from bench.gate.fixed_limit import BATCH, CASES
from bench.gate.worker_script import HouseRows


@pytest.fixture(scope="module")
def rows() -> HouseRows:
    torch.set_num_threads(1)
    task = {"device": "cpu", "batch": int(os.environ[BATCH]), "plant": "bench.gate.injected", "steps": 1000,
            "name": "fashion-mnist", "guidance": 3.0}  # fmt: skip
    made = HouseRows(task, environment.ROOT)
    for kind in CASES:
        made.build(kind)
    return made


@pytest.mark.parametrize("case", [f"{kind}-{i}" for kind, count in CASES.items() for i in range(count)])
def test_step(benchmark, rows: HouseRows, case: str) -> None:
    call, _ = rows.prepare(case.rpartition("-")[0], seed=0, calls=1)
    benchmark(call)
