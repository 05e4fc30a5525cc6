"""The batch size as an axis: seconds a step at other batches, and what emptying the allocator's cache costs."""

import random
from statistics import median

import torch

from bench.contenders import CONTENDERS, REFERENCE
from bench.interleave import Arm, Stage
from sampler.errors import in_one_line


def measure(stage: Stage, rows: list[str], slices: int, clock, rng: random.Random, emit) -> None:
    """Slices of each row at each batch of the workload's axis; a row that fails at a batch is told so."""
    for batch in stage.workload.batch_axis:
        other = Stage(stage.workload, stage.model, batch)
        for name in rows:
            emit(event="doing", text=f"batch {batch} of {name}", batch=batch, phase="batch")
            try:
                arm = other.arm(CONTENDERS[name])
                other.first_call_s(arm)
                noise = arm.noise(1, batch)
                arm.warm_for(arm.time_slice(other.x, noise, clock, rng)[1])
                timed = [arm.time_slice(other.x, noise, clock, rng) for _ in range(slices)]
            except Exception as error:
                emit(event="axis_error", row=name, batch=batch, message=in_one_line(error))
                continue
            emit(event="axis", row=name, batch=batch, steps=arm.steps, step_s=[s for s, _ in timed],
                 step_wall_s=[w for _, w in timed])  # fmt: skip
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
