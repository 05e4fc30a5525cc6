"""Whole runs, timed step for step, and the pictures they end in: what the slices are held against."""

import base64
import random

import torch

from bench.contenders import REFERENCE, TEXTBOOK
from bench.interleave import Arm, Stage
from sampler.errors import in_one_line
from sampler.generate import to_unit

# the rows whose pictures or whole time tell most; of these and then of the others, the cheapest come first
TELLING = ("all-lossless", "all-lossless-cuda", "all-together", "all-together-cuda", "ddim", "strided",
           "textbook-strided", "all-equal-steps", "all-equal-steps-cuda", TEXTBOOK)  # fmt: skip
PART_S = 0.7  # a run is taken in parts of about this length, in turn with every other row's
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


def measure(
    stage: Stage,
    arms: dict[str, Arm],
    step_s: dict[str, float],
    seconds: float,
    clock,
    rng: random.Random,
    emit,
    telemetry,
) -> None:
    """Every step of the affordable rows, in parts taken in turn, so that drift falls on all rows alike.

    step_s: wall seconds of a step of each row, from which the cost of its whole run is foreseen.
    """
    cost_s = {name: s * arms[name].steps for name, s in step_s.items()}
    chosen = affordable(cost_s, seconds)
    seed = stage.workload.seed
    states, noises, faulty = {}, {}, set()
    order = schedule(chosen, cost_s, rng)
    for done, (name, run, part, parts) in enumerate(order):
        if name in faulty:
            continue
        emit(event="doing", text=f"whole runs, part {done + 1} of {len(order)}", row=name)
        arm = arms[name]
        if part == 0:
            states[name], noises[name] = stage.x, arm.noise(seed, stage.batch)
        positions = range(round(part * arm.steps / parts), round((part + 1) * arm.steps / parts))
        try:
            before = telemetry.sample()
            start = clock.mark()
            states[name] = arm.advance(states[name], list(positions), noises[name])
            reading = clock.between(start, clock.mark())
            around = telemetry.between(before, telemetry.sample(), reading.wall_s)
        except Exception as error:
            emit(event="error", row=name, message=in_one_line(error))
            faulty.add(name)
            continue
        emit(event="segment", row=name, run=run, index=part, steps=len(positions), seconds=reading.decisive_s,
             wall_s=reading.wall_s, **around)  # fmt: skip
    for name in chosen:
        if name in faulty:
            continue
        pictures = stage.model.pictures(states[name])
        if not bool(torch.isfinite(pictures).all()):
            emit(event="error", row=name, message="its pictures hold NaN or infinity")
            continue
        emit(event="pictures", row=name, shape=list(pictures.shape), **encode(pictures))


def encode(pictures: torch.Tensor) -> dict[str, str]:
    """Pictures [B, C, H, W] in [-1, 1] as base64 of their bytes, 0…255."""
    grey = (to_unit(pictures.float().cpu()) * 255).round().to(torch.uint8)
    return {"uint8_base64": base64.b64encode(grey.numpy().tobytes()).decode()}
