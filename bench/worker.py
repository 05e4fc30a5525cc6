"""A worker: one fresh process, pinned to one core, that times what it is told and reports line by line.

It reads a task (JSON) from its first argument and writes one JSON event a line to standard output; it ends
when its standard input closes, so that no worker outlives its parent.
"""

import base64
import gc
import json
import os
import random
import sys
import threading
import time
from dataclasses import replace
from statistics import median

import torch

from bench.clock import clock_for
from bench.contenders import CONTENDERS, REFERENCE, TEXTBOOK, Contender, full_path
from bench.interleave import Arm, Stage, time_pair
from bench.workload import from_json
from sampler.errors import UsageError
from sampler.generate import to_unit
from sampler.models import load_model
from sampler.noise import PhiloxNoise
from sampler.variants import VARIANTS

_STARTED = time.monotonic()
WHOLE_FIRST = (REFERENCE, TEXTBOOK, "all-lossless", "all-lossless-cuda", "all-together", "all-together-cuda",
               "ddim", "strided", "textbook-strided", "all-equal-steps", "all-equal-steps-cuda")  # fmt: skip
SEGMENTS = 20  # a whole run is taken in so many parts, in turn with every other row's


def main(task_json: str) -> None:
    emit = _emitter()
    _end_with_parent()
    task = json.loads(task_json)
    workload = from_json(task["workload"])
    if task.get("core") is not None:
        os.sched_setaffinity(0, {task["core"]})
    torch.set_num_threads(workload.threads)
    rng = random.Random(task["seed"])
    stage = Stage(
        workload, load_model(workload.model, workload.device), workload.batch, share="probe" not in task["phases"]
    )
    extra = {c.name: c for c in _planted(task.get("plant"))}
    rows = [{**CONTENDERS, **extra}[name] for name in task["rows"]]

    arms = _first_calls(stage, rows, task, emit)
    if "probe" in task["phases"]:
        _probe(stage, arms, emit)
    step_s = _pairs(stage, arms, task, rng, emit) if "pairs" in task["phases"] else {}
    if "axis" in task["phases"]:
        _axis(stage, task, rng, emit)
    if "whole" in task["phases"]:
        _whole_runs(stage, arms, task, step_s, rng, emit)
    if "quality" in task["phases"]:
        _quality(stage, rows, task, emit)
    emit(event="done")


def _first_calls(stage: Stage, rows: list[Contender], task: dict, emit) -> dict[str, Arm]:
    """Build every row and call it once; a row that raises is reported and left out."""
    from torch._dynamo.utils import counters

    arms: dict[str, Arm] = {}
    for contender in rows:
        emit(event="doing", text=f"first call of {contender.name}")
        seen, hit = counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_hit"]
        try:
            arm = stage.arm(contender)
            seconds = stage.first_call_s(arm)
        except Exception as error:  # any fault of a contender is its row's, not the run's
            emit(event="error", row=contender.name, message=_sentence(error))
            continue
        arms[contender.name] = arm
        graphs, hits = counters["stats"]["unique_graphs"] - seen, counters["inductor"]["fxgraph_cache_hit"] - hit
        compiled_now = graphs > hits  # else every graph came from Inductor's cache, or there is none
        emit(
            event="first_call",
            row=contender.name,
            steps=arm.steps,
            seconds=seconds,
            compiled_now=compiled_now,
        )
    return arms


def _probe(stage: Stage, arms: dict[str, Arm], emit) -> None:
    """Run each variant on the same short path and noise, and report how far it ends from the reference."""
    noise = PhiloxNoise(stage.workload.seed, range(stage.batch))
    truth = arms[REFERENCE].probe(stage.x, noise)
    for name, arm in arms.items():
        if arm.contender.textbook or arm.contender.path is not full_path:
            continue
        emit(event="doing", text=f"comparing {name} with the reference")
        try:
            error = (arm.probe(stage.x, noise) - truth).abs()
        except Exception as fault:
            emit(event="error", row=name, message=_sentence(fault))
            continue
        emit(event="probe", row=name, largest=float(error.max()), rms=float(error.square().mean().sqrt()))


def _pairs(stage: Stage, arms: dict[str, Arm], task: dict, rng: random.Random, emit) -> dict[str, float]:
    """Rounds over all rows in random order, one pair each, until the rounds or the time are used up.

    Returns the wall seconds of each row's last step, from which the cost of its whole run is foreseen.
    """
    clock = clock_for(stage.workload.device)
    reference = arms[REFERENCE]
    noises = {name: arm.noise(1, stage.batch) for name, arm in arms.items()}
    names = [name for name in arms if name != REFERENCE]
    stop_at = time.monotonic() + task["pairs_s"]
    gc.disable()
    for name in list(names):  # a slow row gets one-step slices, so that it cannot eat the others' time
        arm = arms[name]
        try:
            seconds, _ = arm.time_slice(stage.x, noises[name], clock, rng)
        except Exception as error:
            emit(event="error", row=name, message=_sentence(error))
            names.remove(name)
            continue
        if seconds > 0.1 and arm.contender.variant.guided_between == (0.0, 1.0):
            arm.slice_steps = 1
    spent, step_s = dict.fromkeys(names, 0.0), {}
    share_s = task["pairs_s"] / max(1, len(names))
    for i in range(task["rounds"]):
        rng.shuffle(names)
        for name in names:
            over = time.monotonic() > stop_at or spent[name] > 2.5 * share_s
            if over and i >= task.get("minimum_rounds", 3):
                continue
            start = time.monotonic()
            try:
                pair = time_pair(reference, arms[name], stage.x, (noises[REFERENCE], noises[name]), clock, rng)
            except Exception as error:
                emit(event="error", row=name, message=_sentence(error))
                names = [other for other in names if other != name]
                continue
            spent[name] += time.monotonic() - start
            step_s.update({REFERENCE: pair["reference_wall_s"], name: pair["row_wall_s"]})
            emit(event="pair", row=name, round=i, **pair)
        gc.collect()
    gc.enable()
    return step_s


def _axis(stage: Stage, task: dict, rng: random.Random, emit) -> None:
    """Seconds a step at other batch sizes."""
    clock = clock_for(stage.workload.device)
    for batch in stage.workload.batch_axis:
        other = Stage(stage.workload, stage.model, batch)
        for name in task["axis_rows"]:
            emit(event="doing", text=f"batch {batch} of {name}")
            try:
                arm = other.arm(CONTENDERS[name])
                other.first_call_s(arm)
                noise = arm.noise(1, batch)
                slices = [arm.time_slice(other.x, noise, clock, rng) for _ in range(task["axis_slices"])]
            except Exception as error:
                emit(event="axis_error", row=name, batch=batch, message=_sentence(error))
                continue
            emit(event="axis", row=name, batch=batch, steps=arm.steps, step_s=[s for s, _ in slices],
                 step_wall_s=[w for _, w in slices])  # fmt: skip
    _empty_cache(stage, stage.arm(CONTENDERS[REFERENCE]), clock, emit)


def _empty_cache(stage: Stage, arm: Arm, clock, emit) -> None:
    """What emptying the allocator's cache before a batch costs."""
    if stage.model.device.type != "cuda":
        emit(event="empty_cache", text="nothing to empty: PyTorch's CPU allocator keeps no cache",
             advice="not on a CPU")  # fmt: skip
        return
    noise, few = arm.noise(1, stage.batch), list(range(min(20, arm.steps)))
    timed: dict[bool, list[float]] = {True: [], False: []}
    for i in range(20):
        start = clock.mark()
        if i % 2:
            torch.cuda.empty_cache()
        arm.advance(stage.x, few, noise)
        timed[bool(i % 2)].append(clock.between(start, clock.mark()).wall_s)
    cost_ms = (median(timed[True]) - median(timed[False])) * 1e3
    emit(event="empty_cache", raw=[timed[False], timed[True]], text=f"costs {cost_ms:.2f} ms a batch",
         advice="when memory must go to another process")  # fmt: skip


QUALITY_ROWS = (TEXTBOOK, "textbook-strided", "strided", "ddim", "limited-guidance", "all-together")


def _quality(stage: Stage, rows: list[Contender], task: dict, emit) -> None:
    """Pictures of the rows that draw others, judged, and their distance from the reference's; not timed.

    Drawn eagerly with batched guidance where the row's technique does not change the pictures.
    """
    from bench.quality.classifier import label_accuracy

    samples = task["quality_samples"]
    judge = Stage(stage.workload, stage.model, samples)
    labels = torch.arange(samples) % stage.model.classes
    names = {c.name for c in rows}
    drawn: dict[str, torch.Tensor] = {}
    for name in (REFERENCE, *(n for n in QUALITY_ROWS if n in names)):
        emit(event="doing", text=f"drawing {samples} pictures of {name}")
        contender = CONTENDERS[name]
        interval = contender.variant.guided_between
        variant = replace(VARIANTS["batched-cfg"], name=f"judged {interval}", guided_between=interval)
        arm = judge.arm(replace(contender, variant=variant))
        drawn[name] = arm.advance(judge.x, list(range(arm.steps)), arm.noise(stage.workload.seed, samples)).cpu()
        correct = label_accuracy(drawn[name], labels).correct
        rms = (drawn[name] - drawn[REFERENCE]).square().mean().sqrt()
        emit(event="judged", row=name, samples=samples, correct=correct, rms=float(rms),
             shape=list(drawn[name].shape), **encode(drawn[name]))  # fmt: skip


def _whole_runs(stage: Stage, arms: dict[str, Arm], task: dict, step_s: dict, rng: random.Random, emit) -> None:
    """Every step of each row, in segments taken in turn, so that drift falls on all rows alike.

    The telling rows come first, then the cheapest, while `whole_until_s` seconds after the start last.
    """
    clock = clock_for(stage.workload.device)
    cost_s = {name: step_s[name] * arms[name].steps for name in step_s if name in arms}
    left_s = task["whole_until_s"] - (time.monotonic() - _STARTED)
    chosen = []
    for name in sorted(cost_s, key=lambda n: (n not in WHOLE_FIRST, cost_s[n])):
        if cost_s[name] <= left_s:
            chosen.append(name)
            left_s -= cost_s[name]
    seed = stage.workload.seed
    noises = {name: arms[name].noise(seed, stage.batch) for name in chosen}
    states = dict.fromkeys(chosen, stage.x)
    for i in range(SEGMENTS):
        rng.shuffle(chosen)
        emit(event="doing", text=f"whole runs, part {i + 1} of {SEGMENTS}")
        for name in list(chosen):
            steps = arms[name].steps
            positions = list(range(round(i * steps / SEGMENTS), round((i + 1) * steps / SEGMENTS)))
            if not positions:
                continue
            start = clock.mark()
            try:
                states[name] = arms[name].advance(states[name], positions, noises[name])
            except Exception as error:
                emit(event="error", row=name, message=_sentence(error))
                chosen.remove(name)
                continue
            reading = clock.between(start, clock.mark())
            emit(event="segment", row=name, index=i, steps=len(positions), seconds=reading.decisive_s,
                 wall_s=reading.wall_s)  # fmt: skip
    for name in chosen:
        pictures = states[name]
        if not bool(torch.isfinite(pictures).all()):
            emit(event="error", row=name, message="its pictures hold NaN or infinity")
            continue
        emit(event="pictures", row=name, shape=list(pictures.shape), **encode(pictures))


def encode(pictures: torch.Tensor) -> dict[str, str]:
    """Pictures [B, C, H, W] in [-1, 1] as base64 of their bytes, 0…255."""
    grey = (to_unit(pictures.float().cpu()) * 255).round().to(torch.uint8)
    return {"uint8_base64": base64.b64encode(grey.numpy().tobytes()).decode()}


def _planted(module: str | None) -> list[Contender]:
    """Extra contenders from a module's `CONTENDERS`, for the harness's own tests."""
    if not module:
        return []
    import importlib

    return list(importlib.import_module(module).CONTENDERS)


def _sentence(error: Exception) -> str:
    if isinstance(error, UsageError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _emitter():
    """Write events to the real standard output; whatever else prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(**event) -> None:
        out.write(json.dumps(event) + "\n")

    return emit


def _end_with_parent() -> None:
    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
