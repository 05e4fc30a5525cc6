"""The pasted lines of plain PyTorch against the row that they stand for, slices interleaved.

Fails where they are shown to be more than 5 % slower; what is shown, with its interval, is in `extra_info`.

`DDPM_BENCH_PASTED=bf16+batched+frozen+limited pytest bench/test_pasted.py --benchmark-only` times another combination.
"""

import math
import os
import random

import pytest
import torch

from bench.clock import CpuClock, ReplayClock
from bench.contenders import CONTENDERS as SHIPPED
from bench.sequential_test import slowdown_interval
from bench.tune import paste
from bench.tune.space import choice_of, contender
from sampler import GeneratorNoise
from sampler.models import load_model
from sampler.variants import build, run

NAME = os.environ.get("DDPM_BENCH_PASTED", "batched+frozen")
STEPS, ROUNDS, BATCH = 10, 40, 4
ALLOWED = 0.05
clock = ReplayClock()


@pytest.fixture(scope="module")
def seconds() -> dict[str, list[float]]:
    """Seconds of a short path of each, one thread, in rounds of random order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, labels = load_model("fashion-mnist"), torch.arange(BATCH)
    row = SHIPPED[NAME] if NAME in SHIPPED else contender(choice_of(NAME))
    assert row is not None
    x = torch.randn(BATCH, *model.shape, generator=torch.Generator().manual_seed(0))
    sampler, path = build(row.variant, model.network, model.condition(labels), 3.0), row.path(model, STEPS)
    noise = GeneratorNoise(torch.Generator().manual_seed(0))
    scope: dict = {}
    exec(compile(paste.plain(NAME, model), "pasted", "exec"), scope)
    generator = torch.Generator().manual_seed(0)
    pasted = scope["sampler"](model.network, model.schedule.alphas_cumprod, labels, model.null_label, 3.0, STEPS)
    calls = {
        "row": lambda: run(sampler, x, path, noise),
        "pasted": lambda: pasted(x, lambda x: torch.randn(x.shape, generator=generator)),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    cpu, rng, order = CpuClock(), random.Random(0), list(calls)
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        rng.shuffle(order)
        for name in order:
            start = cpu.mark()
            calls[name]()
            found[name].append(cpu.between(start, cpu.mark()).decisive_s)
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("name", ["row", "pasted"])
@pytest.mark.benchmark(timer=clock)
def test_pasted(name: str, seconds: dict[str, list[float]], benchmark) -> None:
    clock.load(seconds[name])
    benchmark.pedantic(clock.replay, rounds=len(seconds[name]), iterations=1)
    slower = [a / b for a, b in zip(seconds["pasted"], seconds["row"], strict=True)]
    value, low, high = slowdown_interval(math.log(ratio) for ratio in slower)
    benchmark.extra_info.update(combination=NAME, pasted_slower=value, low=low, high=high)
    assert low <= ALLOWED, f"pasted {NAME} is {value:.1%} [{low:.1%}, {high:.1%}] slower than the row"
