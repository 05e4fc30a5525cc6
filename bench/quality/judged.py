"""Pictures of the rows that draw others than the reference, judged by the shipped classifier; not timed."""

from dataclasses import replace

import torch

from bench.contenders import CONTENDERS, REFERENCE, TEXTBOOK
from bench.interleave import Stage
from bench.quality.classifier import label_accuracy
from bench.whole_runs import encode
from sampler.variants import VARIANTS

ROWS = (TEXTBOOK, "textbook-strided", "strided", "ddim", "limited-guidance", "all-together")


def measure(stage: Stage, names: set[str], samples: int, emit) -> None:
    """Draw `samples` pictures a row, and report label accuracy and the distance from the reference's.

    Drawn eagerly with batched guidance where the row's technique does not change the pictures.
    """
    judge = Stage(stage.workload, stage.model, samples)
    labels = torch.arange(samples) % stage.model.classes
    drawn: dict[str, torch.Tensor] = {}
    for name in (REFERENCE, *(n for n in ROWS if n in names)):
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
