"""A sampler step outside the network: our update against diffusers' `DDPMScheduler.step`, slices interleaved.

Three times: the update alone, at the last step, where neither adds noise; with noise that was drawn before (handed to
diffusers in the place of its own); and with the noise.
"""

import random
from statistics import median

import pytest
import torch

from bench.clock import CpuClock, ReplayClock
from sampler.noise import PhiloxNoise
from sampler.posterior import posterior
from sampler.schedule import linear
from sampler.trajectory import ancestral
from sampler.variants import native_drawn_update, native_update

SHAPE, CALLS, ROUNDS = (16, 3, 64, 64), 20, 40
clock = ReplayClock()
NAMES = (
    "diffusers",
    "diffusers, noise given",
    "diffusers without noise",
    "torch.randn",
    "copy",
    "plain, noise given",
    "native with noise",
    "native, noise given",
    "native without noise",
)
AGAINST = {
    "native without noise": "diffusers without noise",
    "native, noise given": "diffusers, noise given",
    "native with noise": "diffusers",
}


@pytest.fixture(scope="module")
def costs() -> dict[str, list[float]]:
    """Seconds a call of each, one thread, in rounds of random order."""
    ddpm = pytest.importorskip("diffusers", reason="install the [peers] extra for this comparison")
    from diffusers.schedulers import scheduling_ddpm

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x, out, z = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    state = x.clone()  # the native update writes over the state, as it does in the sampler's loop
    theirs = ddpm.DDPMScheduler(1000, variance_type="fixed_small")
    rows = ancestral(linear()).tables("cpu")[1]
    row, last, key = rows[499], rows[-1], PhiloxNoise(0, range(SHAPE[0])).key(500, x)
    native, drawn = native_update.load(), native_drawn_update.load()

    assert last[4] == 0

    def noise_given() -> None:
        draw, scheduling_ddpm.randn_tensor = scheduling_ddpm.randn_tensor, lambda *a, **k: z
        try:
            theirs.step(out, 500, x, generator=generator)
        finally:
            scheduling_ddpm.randn_tensor = draw

    calls = dict(
        zip(NAMES, (
            lambda: theirs.step(out, 500, x, generator=generator), noise_given, lambda: theirs.step(out, 0, x),
            lambda: torch.randn(SHAPE, generator=generator), lambda: x.clone(),
            lambda: posterior(x, out, z, row),
            lambda: drawn(state, out, key, row, state), lambda: native(state, out, z, row, state),
            lambda: native(state, out, z, last, state),
        ), strict=True)
    )  # fmt: skip
    measured: dict[str, list[float]] = {name: [] for name in NAMES}
    cpu, rng, order = CpuClock(), random.Random(0), list(NAMES)
    with torch.inference_mode():
        for _ in range(ROUNDS):
            rng.shuffle(order)
            for name in order:
                calls[name]()
                start = cpu.mark()
                for _ in range(CALLS):
                    calls[name]()
                measured[name].append(cpu.between(start, cpu.mark()).decisive_s / CALLS)
    torch.set_num_threads(threads)
    return measured


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.benchmark(timer=clock, group="update of 16×3×64×64, one thread")
def test_update_cost(name: str, benchmark, costs, capsys) -> None:
    clock.load(costs[name])
    benchmark.pedantic(clock.replay, rounds=len(costs[name]), iterations=1)
    if name in AGAINST:
        theirs, ours = costs[AGAINST[name]], costs[name]
        ratios = sorted(t / o for t, o in zip(theirs, ours, strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        # Fastest against fastest: the rounds in which the allocator still held the memory of every temporary
        fastest = min(theirs) / min(ours)
        benchmark.extra_info |= {"times_cheaper": median(ratios), "times_cheaper_fastest": fastest}
        with capsys.disabled():
            print(f"\n{name}: {median(ratios):.1f} times cheaper than {AGAINST[name]}, 16×3×64×64, one thread "
                  f"(80 % of the rounds within {low:.1f}…{high:.1f}; by the fastest rounds {fastest:.1f})")  # fmt: skip
