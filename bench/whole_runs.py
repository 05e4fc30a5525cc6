"""Whole runs, timed step for step, and the pictures they end in: what the slices are held against."""

import base64
import math
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
REPEAT_S = 3.0  # a run shorter than this is taken more than once, within these seconds
MOST_RUNS = 10


def affordable(cost_s: dict[str, float], seconds: float) -> dict[str, int]:
    """The rows to run whole in the time, and how often each.

    The telling first, then the rest, the cheapest first; and the reference as often as all others together take time,
    for its parts lie between theirs. Where not even one run of it fits, the others have no ratio, but their pictures.
    """

    def key(name: str) -> tuple[bool, float]:
        return name not in TELLING, cost_s[name]

    def reference_runs(others_s: float) -> int:
        return max(1, math.ceil(others_s / reference_s)) if reference_s <= seconds else 0

    reference_s = cost_s.get(REFERENCE, math.inf)
    chosen, others_s = dict[str, int](), 0.0
    for name in sorted(cost_s.keys() - {REFERENCE}, key=key):
        runs = max(1, min(MOST_RUNS, int(REPEAT_S / cost_s[name])))
        with_it_s = others_s + runs * cost_s[name]
        many = reference_runs(with_it_s)
        if with_it_s + (many * reference_s if many else 0.0) <= seconds:
            chosen[name], others_s = runs, with_it_s
    many = reference_runs(others_s)
    return {REFERENCE: many, **chosen} if many else chosen


def schedule(
    runs: dict[str, int], cost_s: dict[str, float], steps: dict[str, int], rng: random.Random
) -> list[tuple[str, int, int, int]]:
    """In which order to take the parts: (row, run, part, parts of a run), each row's spread over the whole time.

    The reference's lie evenly between those of the others. cost_s: wall seconds of a whole run of each row; steps: of
    which each part takes one at least.
    """
    places: dict[str, list[tuple[float, str, int, int, int]]] = {}
    for name, count in runs.items():
        parts = max(1, min(steps[name], round(cost_s[name] / PART_S)))
        many = count * parts
        places[name] = [((i + rng.random()) / many, name, *divmod(i, parts), parts) for i in range(many)]
    between = [one[1:] for one in places.pop(REFERENCE, [])]
    others = sorted(one for of_row in places.values() for one in of_row)
    order = [(i + 0.5, one[1:]) for i, one in enumerate(others)]
    order += [(i * len(others) / max(1, len(between) - 1), one) for i, one in enumerate(between)]
    return [one for _, one in sorted(order, key=lambda placed: placed[0])]


class WholeRuns:
    """Every step of the affordable rows, in parts taken in turn, the reference's between the others'.

    So drift falls on all rows alike, and each part has one of the reference's before or after it to be held against.
    They are taken in visits between the turns of pairs, each visit on a core of its own.

    step_s: wall seconds of a step of each row, from which the cost of its whole run is foreseen; seconds: for all.
    """

    def __init__(
        self, stage: Stage, arms: dict[str, Arm], step_s: dict[str, float], seconds: float, rng: random.Random
    ):
        self.stage, self.arms = stage, arms
        cost_s = {name: s * arms[name].steps for name, s in step_s.items()}
        self.chosen = affordable(cost_s, seconds)
        self.order = schedule(self.chosen, cost_s, {name: arms[name].steps for name in cost_s}, rng)
        self.done = self.visits = 0
        self.states: dict[str, torch.Tensor] = {}
        self.noises: dict[str, Any] = {}
        self.faulty: set[str] = set()

    def advance(self, until: float, clock, emit, telemetry) -> None:
        """Go on until this share of all parts is done; with the last of them come the pictures."""
        upto = round(until * len(self.order))
        if self.done >= upto:
            return
        self.visits += 1
        for name, run, part, parts in self.order[self.done : upto]:
            self.done += 1
            if name not in self.faulty:
                emit(event="doing", text=f"whole runs, part {self.done} of {len(self.order)}", row=name, phase="part")
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
        emit(event="segment", row=name, run=run, index=part, visit=self.visits, steps=len(positions),
             seconds=reading.decisive_s, wall_s=reading.wall_s, **around)  # fmt: skip

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
