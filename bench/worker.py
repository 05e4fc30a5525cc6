"""A worker: one fresh process that builds the rows it is told, then times what it is ordered to, line by line.

Its first argument is the task (JSON). Orders come as JSON lines on standard input, `{"do": "pairs", …}`; it
answers each with JSON events on standard output, the last of them `done`, and ends when its input closes. Before
whatever may take long it says so (`doing`, with the `phase` by which `Patience` knows what it may take).
"""

import gc
import os
import random
import sys
import time
from statistics import fmean

import torch

from bench import axis, child, evidence
from bench.clock import clock_for
from bench.contenders import CONTENDERS, REFERENCE
from bench.inspection import probe
from bench.interleave import Arm, Stage, time_pair
from bench.planted import planted
from bench.quality import judged
from bench.tally import Tally
from bench.telemetry import telemetry_for
from bench.whole_runs import WholeRuns
from bench.workload import from_json
from sampler import strict_json as json
from sampler.errors import in_one_line
from sampler.models import load_model

COUNTED = 8  # one in so many loops has its network calls counted
SLOW_STEP_S = 0.1  # rows slower than this are timed in slices of one step, lest they eat the others' time


class Work:
    """What a worker has built, and the orders it understands (the methods without an underscore)."""

    def __init__(self, task: dict, emit):
        self.emit = emit
        self.workload = from_json(task["workload"])
        self.rng = random.Random(task["seed"])
        torch.set_num_threads(self.workload.threads)
        model = load_model(self.workload.model, self.workload.device)
        self.tally = Tally(model.network, torch.cuda.CUDAGraph if model.device.type == "cuda" else None, COUNTED)
        self.stage = Stage(self.workload, model, self.workload.batch, share=True, tally=self.tally)
        extra = {c.name: c for c in planted(task.get("plant"))}
        self.known = {**CONTENDERS, **extra}
        self.rows: list[str] = task["rows"]
        self.arms: dict[str, Arm] = {}
        self.clock = clock_for(self.workload.device)
        self.telemetry = telemetry_for(model.device)
        self.noises: dict = {}
        self.step_s: dict[str, list[float]] = {}  # wall seconds of each row's timed steps
        self.rounds = 0
        self.wholes: WholeRuns | None = None

    def build(self, rows: list[str] | None = None) -> None:
        """Build every row of the task, or these, and call it once; a row that raises is reported and left out."""
        from torch._dynamo.utils import counters

        if not self.arms:
            gc.freeze()  # compilers make garbage by the million; no collection need look at what was imported
        for contender in (self.known[name] for name in (self.rows if rows is None else rows)):
            self.emit(event="doing", text=f"first call of {contender.name}", row=contender.name, phase="first_call")
            seen, hit = counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_hit"]
            try:
                arm = self.stage.arm(contender)
                seconds = self.stage.first_call_s(arm)
            except Exception as error:  # any fault of a contender is its row's, not the run's
                self.fault(contender.name, error)
                continue
            self.arms[contender.name] = arm
            graphs = counters["stats"]["unique_graphs"] - seen
            hits = counters["inductor"]["fxgraph_cache_hit"] - hit
            compiled_now = graphs > hits  # else every graph came from Inductor's cache, or there is none
            self.emit(event="first_call", row=contender.name, steps=arm.steps, seconds=seconds,
                      compiled_now=compiled_now)  # fmt: skip
        self.tally.clear()

    def pairs(self, rows: list[str], rounds: int, seconds: float) -> None:
        """Rounds over the rows in random order, one pair each, until the rounds or the time are used up."""
        names = [name for name in rows if name in self.arms and name != REFERENCE]
        stop_at = time.monotonic() + seconds
        gc.collect()
        gc.disable()
        for name in list(names):
            if name not in self.noises and not self._warm(name):
                names.remove(name)
        if names and REFERENCE not in self.noises:
            self._warm(REFERENCE)
        for i in range(rounds):
            self.rng.shuffle(names)
            for name in list(names):
                if i and time.monotonic() > stop_at:
                    break
                noises = (self.noises[REFERENCE], self.noises[name])
                self.emit(event="doing", text=f"timing {name}", row=name, phase="slice")
                before, began = self.telemetry.sample(), time.perf_counter()
                try:
                    pair = time_pair(
                        self.arms[REFERENCE], self.arms[name], self.stage.x, noises, self.clock, self.rng,
                        self.telemetry.while_busy,
                    )  # fmt: skip
                except Exception as error:
                    self.fault(name, error)
                    names.remove(name)
                    continue
                self.step_s.setdefault(REFERENCE, []).append(pair["reference_wall_s"])
                self.step_s.setdefault(name, []).append(pair["row_wall_s"])
                around = self.telemetry.between(before, self.telemetry.sample(), time.perf_counter() - began)
                self.emit(event="pair", row=name, round=self.rounds, **pair, **around)
            self.rounds += 1
        gc.enable()
        self._testify()

    def _warm(self, name: str) -> bool:
        """A first slice that is not kept; whether the row lived through it."""
        arm = self.arms[name]
        self.emit(event="doing", text=f"warming {name}", row=name, phase="slice")
        self.noises[name] = arm.noise(1, self.stage.batch)
        try:
            seconds, wall_s = arm.time_slice(self.stage.x, self.noises[name], self.clock, self.rng)
        except Exception as error:
            self.fault(name, error)
            return False
        self.tally.forget(name)  # a first call may still have captured or compiled
        if seconds > SLOW_STEP_S and arm.contender.variant.guides_everywhere:
            arm.slice_steps = 1
        arm.warm_for(wall_s)
        return True

    def _testify(self) -> None:
        """What the calls of each row did since its first call, those that were timed among them."""
        for name, counts in self.tally.counts.items():
            seen = evidence.Seen(batch=self.stage.batch, counts=dict(counts), cuda=self.stage.x.is_cuda)
            findings = evidence.judge(self.arms[name].contender.engaged, seen)
            self.emit(event="evidence", row=name, where="timed", seen=seen.json(),
                      findings=[list(f) for f in findings])  # fmt: skip

    def compare(self, rows: list[str]) -> None:
        """How far rows on the reference's own path end from it, after a short path on the same noise."""
        for name in rows:
            if name not in self.arms or self.arms[name].contender.textbook:
                continue
            self.emit(event="doing", text=f"comparing {name}", row=name, phase="look")
            try:
                probe(self.stage, self.arms[name], self.workload.seed, self.emit)
            except Exception as error:
                self.fault(name, error)

    def axis(self, rows: list[str], slices: int) -> None:
        """Seconds a step at other batch sizes."""
        axis.measure(self.stage, rows, slices, self.clock, self.rng, self.emit)

    def whole(self, rows: list[str], seconds: float, until: float, step_s: dict[str, float]) -> None:
        """Whole runs of as many of the rows as fit the time, gone on with until this share of them is done.

        step_s: wall seconds of a step of rows that this process may not have timed itself.
        """
        if self.wholes is None:
            mine = {name: fmean(seconds) for name, seconds in self.step_s.items()}
            step_s = {name: s for name, s in {**step_s, **mine}.items() if name in rows and name in self.arms}
            self.wholes = WholeRuns(self.stage, self.arms, step_s, seconds, self.rng)
        self.wholes.faulty |= self.wholes.chosen.keys() - set(rows)
        self.wholes.advance(until, self.clock, self.emit, self.telemetry)
        self._testify()

    def judge(self, rows: list[str], seconds: float) -> None:
        """What the pictures of the rows that draw others are worth."""
        stop_at = time.monotonic() + seconds
        judged.measure(self.workload, rows, seconds, self.emit)
        for name in (name for name in rows if name not in CONTENDERS):
            try:
                judged.measure_own(self.workload, self.known[name], stop_at - time.monotonic(), self.emit)
            except Exception as error:  # somebody's code; any fault of a row is that row's
                self.fault(name, error)

    def fault(self, row: str, error: Exception) -> None:
        self.emit(event="error", row=row, message=in_one_line(error))


def main(task_json: str) -> None:
    emit, orders = child.answers(), child.orders()
    work = Work(json.loads(task_json), emit)
    while True:
        order = orders.get()
        core = order.pop("core", None)
        if core is not None:
            os.sched_setaffinity(0, {core})
        getattr(work, order.pop("do"))(**order)
        emit(event="done")


if __name__ == "__main__":
    main(sys.argv[1])
