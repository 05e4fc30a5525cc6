"""Whole runs, timed step for step, and the pictures they end in: what the slices are held against."""

import base64
import random
from typing import Any

import torch

from bench.contenders import REFERENCE, TEXTBOOK
from bench.interleave import Arm, Stage
from sampler.errors import in_one_line
from sampler.generate import to_unit

# the rows whose pictures or whole time tell most; of these and then of the others, the cheapest come first
TELLING = ("all-lossless", "all-lossless-cuda", "all-together", "all-together-cuda", "ddim", "strided",
           "textbook-strided", "all-equal-steps", "all-equal-steps-cuda", TEXTBOOK)  # fmt: skip
PART_S = 0.15  # a run is taken in parts of about this length, in turn with every other row's: neighbours stay longer
REPEAT_S = 5.0  # a run shorter than this is taken more than once, within these seconds
MOST_RUNS = 10
REFERENCE_RUNS = 2  # where they fit: what disturbs the one run of the reference moves the ratio of every row


def affordable(cost_s: dict[str, float], seconds: float) -> dict[str, int]:
    """The rows to run whole in the time, and how often each.

    The reference first (without it the others have no ratio), then the telling, then the rest, the cheapest first.
    """

    def key(name: str) -> tuple[bool, bool, float]:
        return name != REFERENCE, name not in TELLING, cost_s[name]

    chosen = {}
    for name in sorted(cost_s, key=key):
        runs = max(1, min(MOST_RUNS, int(REPEAT_S / cost_s[name])))
        if name == REFERENCE and REFERENCE_RUNS * cost_s[name] <= seconds:
            runs = max(runs, REFERENCE_RUNS)
        if runs * cost_s[name] <= seconds:
            chosen[name] = runs
            seconds -= runs * cost_s[name]
    return chosen


def schedule(runs: dict[str, int], cost_s: dict[str, float], rng: random.Random) -> list[tuple[str, int, int, int]]:
    """In which order to take the parts: (row, run, part, parts of a run), each row's spread over the whole time.

    cost_s: wall seconds of a whole run of each row.
    """
    order = []
    for name, count in runs.items():
        parts = max(1, round(cost_s[name] / PART_S))
        for i in range(count * parts):
            order.append(((i + rng.random()) / (count * parts), name, *divmod(i, parts), parts))
    return [one[1:] for one in sorted(order)]


class WholeRuns:
    """Every step of the affordable rows, in parts taken in turn, so that drift falls on all rows alike.

    step_s: wall seconds of a step of each row, from which the cost of its whole run is foreseen; seconds: for all.
    """

    def __init__(
        self, stage: Stage, arms: dict[str, Arm], step_s: dict[str, float], seconds: float, rng: random.Random
    ):
        self.stage, self.arms = stage, arms
        cost_s = {name: s * arms[name].steps for name, s in step_s.items()}
        self.chosen = affordable(cost_s, seconds)
        self.order = schedule(self.chosen, cost_s, rng)
        self.done = 0
        self.states: dict[str, torch.Tensor] = {}
        self.noises: dict[str, Any] = {}
        self.faulty: set[str] = set()

    def advance(self, until: float, clock, emit, telemetry) -> None:
        """Go on until this share of all parts is done; with the last of them come the pictures."""
        upto = round(until * len(self.order))
        if self.done >= upto:
            return
        for name, run, part, parts in self.order[self.done : upto]:
            self.done += 1
            if name not in self.faulty:
                emit(event="doing", text=f"whole runs, part {self.done} of {len(self.order)}", row=name)
                self._take(name, run, part, parts, clock, emit, telemetry)
        if self.done == len(self.order):
            self._show(emit)

    def _take(self, name: str, run: int, part: int, parts: int, clock, emit, telemetry) -> None:
        arm = self.arms[name]
        if part == 0:
            self.states[name] = self.stage.x
            self.noises[name] = arm.noise(self.stage.workload.seed, self.stage.batch)
        positions = range(round(part * arm.steps / parts), round((part + 1) * arm.steps / parts))
        try:
            before = telemetry.sample()
            start = clock.mark()
            self.states[name] = arm.advance(self.states[name], list(positions), self.noises[name])
            reading = clock.between(start, clock.mark())
            around = telemetry.between(before, telemetry.sample(), reading.wall_s)
        except Exception as error:
            emit(event="error", row=name, message=in_one_line(error))
            self.faulty.add(name)
            return
        emit(event="segment", row=name, run=run, index=part, steps=len(positions), seconds=reading.decisive_s,
             wall_s=reading.wall_s, **around)  # fmt: skip

    def _show(self, emit) -> None:
        for name in self.chosen:
            if name in self.faulty:
                continue
            pictures = self.stage.model.pictures(self.states[name])
            if not bool(torch.isfinite(pictures).all()):
                emit(event="error", row=name, message="its pictures hold NaN or infinity")
                continue
            emit(event="pictures", row=name, shape=list(pictures.shape), **encode(pictures))


def encode(pictures: torch.Tensor) -> dict[str, str]:
    """Pictures [B, C, H, W] in [-1, 1] as base64 of their bytes, 0…255."""
    grey = (to_unit(pictures.float().cpu()) * 255).round().to(torch.uint8)
    return {"uint8_base64": base64.b64encode(grey.numpy().tobytes()).decode()}
