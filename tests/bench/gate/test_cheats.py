"""Every cheat is rejected by the gate, by what was timed and with a message that names it; an honest model is not."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.gate import session
from bench.gate.session import Job
from bench.gate.thresholds import load
from bench.gate.verdict import RowResult
from bench.gate.worker import Side, WorkerFault
from bench.gate.worker_script import Desk, FactoryRows, HouseRows
from bench.sequential_test import FAIL, MISSING
from tests import cheaters
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
SIDES = Side("the base", ROOT, "python", "honest"), Side("this tree", ROOT, "python", "cheating")


class InProcess:
    """A worker whose script runs in this process: everything but the pipe is real."""

    def __init__(self, side: Side, rows):
        self.side, self.rows, self.built = side, rows.names(), {}
        self.desk = Desk(rows)

    def pin(self, core) -> None:
        pass

    def send(self, **request) -> None:
        self.request = request

    def ask(self, timeout_s: float = 0.0, **request) -> dict:
        self.send(**request)
        return self.answer()

    def answer(self, timeout_s: float = 0.0) -> dict:
        self.desk.idle_from = time.process_time()  # both sides share this process: neither waits for the other
        _rest()
        found = self.desk.answer(dict(self.request))
        if "error" in found:
            raise WorkerFault(found["error"])
        if self.side is SIDES[0] and "idle_cpu_s" in found:
            found["idle_cpu_s"] = 0.0  # what was seen meanwhile are the threads of the other side
        return found

    def stop(self) -> None:
        pass


def _rest() -> None:
    """Wait as a worker waits for its turn; where a cheat has left a thread running, until that has had some CPU."""
    began, until = time.process_time(), time.monotonic() + PATIENCE_S
    time.sleep(0.01)
    while any(t.name == cheaters.LEFT_RUNNING for t in threading.enumerate()) and time.monotonic() < until:
        if time.process_time() - began > 0.01:
            return
        time.sleep(0.005)


def factory(name: str) -> Callable[[], FactoryRows]:
    task = {"model": f"tests.cheaters:{name}", "device": "cpu", "shape": [4, 16, 16], "batch": 2}
    return lambda: FactoryRows(task, ROOT)


def house(plant: str | None) -> Callable[[], HouseRows]:
    task = {"name": "fashion-mnist", "device": "cpu", "batch": 1, "steps": 1000, "guidance": 3.0, "plant": plant}
    return lambda: HouseRows(task, ROOT)


def judged(monkeypatch, cheat: Callable, base: Callable, row: str = "model", budget_s: float = 0.4) -> RowResult:
    torch.manual_seed(0)

    def start_all(sides, task, each):
        return [[InProcess(side, base() if side is SIDES[0] else cheat()) for _ in range(each)] for side in sides]

    monkeypatch.setattr(session, "start_all", start_all)
    job = Job(*SIDES, {"threads": 1, "device": "cpu"}, load(), [row], budget_s, 1, 1, seed=1)
    (found,) = session.run_gate(job).rows
    return found


@pytest.mark.parametrize(("cheat", "base", "caught"), cheaters.CHEATS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_cheat_is_rejected_by_name(monkeypatch, cheat: type, base: Callable, caught: str) -> None:
    row = judged(monkeypatch, factory(cheat.__name__), factory(base.__name__))
    assert row.verdict in (FAIL, MISSING)
    assert caught in row.note


def test_a_row_that_runs_fewer_steps_under_the_same_name_is_rejected(monkeypatch) -> None:
    row = judged(monkeypatch, house("tests.cheaters"), house(None), "reference")
    assert row.verdict == FAIL
    assert "takes 50 steps where the base takes 1000" in row.note


def test_an_honest_model_has_no_fault_but_perhaps_time(monkeypatch) -> None:
    row = judged(monkeypatch, factory("honest"), factory("honest"))
    assert [fault for fault in row.faults if not fault.startswith("slower")] == []
    assert row.pairs


def test_every_pair_has_inputs_of_its_own(monkeypatch) -> None:
    row = judged(monkeypatch, factory("honest"), factory("honest"), budget_s=1.0)
    assert len(row.pairs) > 1
    assert not any(pair.this_repeated or pair.base_repeated for pair in row.pairs)
    assert all(pair.difference == 0.0 for pair in row.pairs)  # same weights, same inputs, same arithmetic
