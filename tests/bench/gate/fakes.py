"""Workers that take made-up time: the machine's noise and tricks are known, so the gate's answers are too."""

import base64
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.gate import session
from bench.gate.session import Job
from bench.gate.thresholds import load
from bench.gate.worker import Side, WorkerFault, WorkerLost

CALL_S = 0.012
BASE, THIS = Side("the base", Path("/base"), "python", "abc Before"), Side("this tree", Path("/this"), "python", "def")


class FakeMachine:
    """What all workers share: the noise, and a penalty for whoever comes second in a pair."""

    def __init__(self, second_costs: float = 0.0, noise: float = 0.02, seed: int = 1):
        self.rng = random.Random(seed)
        self.second_costs, self.noise = second_costs, noise
        self.slices = 0
        self.order: list[str] = []

    def factor(self, side: str) -> float:
        self.slices += 1
        self.order.append(side)
        second = self.slices % 2 == 0
        return (1 + self.second_costs * second) * float(np.exp(self.rng.gauss(0, self.noise)))


class FakeWorker:
    """rows: {name: seconds a call, or an error that a slice raises}; more: what a slice's answer differs in."""

    def __init__(self, side: Side, machine: FakeMachine, rows: dict, absent: dict | None = None, **more):
        self.side, self.machine, self.costs, self.more = side, machine, rows, more
        self.rows = {**dict.fromkeys(rows, ""), **(absent or {})}
        self.built: dict = {}
        self.cores: list = []
        self.stopped = False
        self.fresh = False

    def hello(self) -> None:
        pass

    def pin(self, core) -> None:
        self.cores.append(core)

    def end(self) -> None:
        self.stopped = True

    def send(self, **request) -> None:
        self.request = request

    def ask(self, timeout_s: float = 0.0, **request) -> dict:
        self.request = request
        return self.answer()

    def answer(self, timeout_s: float = 0.0) -> dict:
        request, cost = self.request, self.costs[self.request["row"]]
        if request["do"] == "build":
            return {"first_call_s": 1.0, "call_s": CALL_S, "steps": 1000, "graphs": 0}
        if request["do"] == "inspect":
            return {"peak_bytes": 1000, "resident_bytes": 1000, "heavy": {"float": 44}}
        if isinstance(cost, Exception):
            raise cost
        seconds = cost * self.machine.factor(self.side.name) * request["calls"]
        output = np.random.default_rng(request["seed"]).standard_normal(8).astype(np.float32)
        return {"cpu_s": seconds, "wall_s": seconds, "idle_cpu_s": 0.0, "shape": [8], "mutated": False,
                "repeated": False, "output": base64.b64encode(output.tobytes()).decode(), **self.more}  # fmt: skip


def gated(monkeypatch, make: Callable[[Side, bool], FakeWorker], **more):
    """Run the gate on fake workers; make(side, fresh) gives each. Returns its result and all workers made."""
    made: list[FakeWorker] = []

    def start_all(sides, task, each):
        fresh = bool(made)
        started = [[make(side, fresh) for _ in range(each)] for side in sides]
        made.extend(worker for side in started for worker in side)
        return started

    monkeypatch.setattr(session, "start_all", start_all)
    task = {"threads": 1, "device": "cpu"}
    job = Job(**{"base": BASE, "this": THIS, "task": task, "thresholds": load(), "budget_s": 5.0, "seed": 3, **more})
    return SimpleNamespace(result=session.run_gate(job), workers=made)


__all__ = ["BASE", "CALL_S", "THIS", "FakeMachine", "FakeWorker", "WorkerFault", "WorkerLost", "gated"]
