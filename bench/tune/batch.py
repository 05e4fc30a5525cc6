"""Which batch: the largest that the memory budget allows, or the one of most images a second, by the reference."""

from dataclasses import replace
from statistics import median

import torch

from bench import memory
from bench.contenders import REFERENCE
from bench.crew import Worker
from bench.memory import Fit, human
from bench.nurseries import inspected
from bench.run import pins
from bench.tune.asked import Asked
from sampler.errors import UsageError

BATCHES = (1, 4, 16, 64)  # tried for throughput
NEARLY = 0.98  # of the most images a second: a smaller batch that gives as many is the better one
SLICES = 5
METERED_BATCH = 4  # from which the peak of any other is foreseen


def foreseen(asked: Asked) -> Fit:
    """How the reference's peak grows with the batch, metered in a fresh process."""
    small = replace(asked.workload, batch=min(METERED_BATCH, asked.workload.batch))
    task = {"workload": small.json(), "plant": None}
    points = None
    for event in inspected(task, [REFERENCE], ("first_call", "scaling"), small, pins(small)):
        if event["event"] in ("error", "died"):
            raise UsageError(f"the reference itself failed: {event['message']}")
        if event["event"] == "memory_scaling":
            points = event["points"]
    found = memory.fit(points or [])
    if found is None:
        raise UsageError("the reference's memory could not be metered")
    return found


def largest_batch(asked: Asked, fit: Fit) -> int:
    """The largest batch within the budget (or what is free), by what the fit may miss; refused where none fits."""
    steps = asked.workload.steps
    within = asked.memory_bytes or float(memory.available_bytes(torch.device(asked.workload.device)))
    batch = fit.largest_batch(within / (1 + fit.error), steps) or min(1, fit.largest_batch(within, steps))
    if batch < 1:
        one = fit.peak(1, steps)
        raise UsageError(
            f"the memory budget of {human(within)} cannot be met: one image takes {human(one)} with the reference, "
            f"{human(one - within)} more"
        )
    return batch


def of_most_throughput(asked: Asked) -> int:
    """The smallest batch at which the reference, or it with batched guidance, gives about the most images a second."""
    job = replace(asked.workload, batch=BATCHES[0], batch_axis=BATCHES)
    rows = [REFERENCE, *(["batched-cfg"] if job.guidance != 1 else [])]
    worker = Worker({"workload": job.json(), "plant": None, "rows": rows, "seed": job.seed}, 0)
    rate: dict[int, float] = {}  # images a second, a step
    try:
        for event in worker.obey({"do": "axis", "rows": rows, "slices": SLICES}):
            if event["event"] == "axis":
                batch = event["batch"]
                rate[batch] = max(rate.get(batch, 0.0), batch / median(event["step_s"]))
    finally:
        worker.end()
    if not rate:
        raise UsageError("no batch could be timed")
    return min(batch for batch in rate if rate[batch] >= NEARLY * max(rate.values()))
