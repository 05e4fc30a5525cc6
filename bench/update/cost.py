"""One update of 16×3×64×64 beside diffusers' `DDPMScheduler.step`, one thread: seconds a call of each, in this process.

Three comparisons: the update alone, at the last step, where neither adds noise; with noise that was drawn before
(handed to diffusers in the place of its own); and with the noise drawn.
"""

import random
import sys

import torch

from bench.clock import CpuClock
from sampler import strict_json
from sampler.noise import PhiloxNoise
from sampler.posterior import State, posterior
from sampler.schedule import linear
from sampler.trajectory import ancestral
from sampler.variants import native_drawn_update, native_update

SHAPE, CALLS, ROUNDS = (16, 3, 64, 64), 20, 40
AGAINST = {
    "native without noise": "diffusers without noise",
    "native, noise given": "diffusers, noise given",
    "native with noise": "diffusers",
}


def calls() -> dict:
    """Name -> one call; the native ones write over their state, as they do in the sampler's loop."""
    from diffusers.schedulers import scheduling_ddpm

    generator = torch.Generator().manual_seed(0)
    x, out, z = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    state = x.clone()
    theirs = scheduling_ddpm.DDPMScheduler(1000, variance_type="fixed_small")
    rows = ancestral(linear()).tables("cpu")[1]
    row, last, key = rows[499], rows[-1], PhiloxNoise(0, range(SHAPE[0])).key(500, x)
    native, drawn = native_update.of_states(), native_drawn_update.of_states()
    ours = State(state)
    assert last[4] == 0

    def noise_given() -> None:
        draw, scheduling_ddpm.randn_tensor = scheduling_ddpm.randn_tensor, lambda *a, **k: z
        try:
            theirs.step(out, 500, x, generator=generator)
        finally:
            scheduling_ddpm.randn_tensor = draw

    return {
        "diffusers": lambda: theirs.step(out, 500, x, generator=generator),
        "diffusers, noise given": noise_given,
        "diffusers without noise": lambda: theirs.step(out, 0, x),
        "torch.randn": lambda: torch.randn(SHAPE, generator=generator),
        "copy": lambda: x.clone(),
        "plain, noise given": lambda: posterior(x, out, z, row),
        "native with noise": lambda: drawn(ours, out, key, row, ours),
        "native, noise given": lambda: native(ours, out, z, row, ours),
        "native without noise": lambda: native(ours, out, z, last, ours),
    }


def measure(seed: int) -> dict[str, list[float]]:
    """Seconds a call, for each name one figure a round; the order of the calls is drawn anew in each round."""
    torch.set_num_threads(1)
    timed, cpu, rng = calls(), CpuClock(), random.Random(seed)
    measured: dict[str, list[float]] = {name: [] for name in timed}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name in rng.sample(list(timed), len(timed)):
                timed[name]()
                start = cpu.mark()
                for _ in range(CALLS):
                    timed[name]()
                measured[name].append(cpu.between(start, cpu.mark()).decisive_s / CALLS)
    return measured


if __name__ == "__main__":
    strict_json.dump(measure(int(sys.argv[1])), sys.stdout)
