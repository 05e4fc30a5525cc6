"""A sampler step outside the network: our update against diffusers' `DDPMScheduler.step`, in several fresh processes.

What diffusers pays for its temporaries is decided by the allocator, and differs from process to process: so a process
is one observation.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from bench.clock import ReplayClock
from bench.update.cost import AGAINST
from kernels import native
from sampler import strict_json

PROCESSES = 7
NAMES = (
    "diffusers", "diffusers, noise given", "diffusers without noise", "torch.randn", "copy", "plain, noise given",
    "native with noise", "native, noise given", "native without noise",
)  # fmt: skip
clock = ReplayClock()


@pytest.fixture(scope="module")
def costs() -> list[dict[str, list[float]]]:
    """Seconds a call of each, one dictionary a process."""
    pytest.importorskip("diffusers", reason="install the [peers] extra for this comparison")
    if why := native.available():
        pytest.skip(why)
    command, root = [sys.executable, "-m", "bench.update.cost"], Path(__file__).parents[1]
    done = [
        subprocess.run([*command, str(seed)], cwd=root, check=True, stdout=subprocess.PIPE)
        for seed in range(PROCESSES)
    ]  # fmt: skip
    return [strict_json.loads(process.stdout) for process in done]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.benchmark(timer=clock, group="update of 16×3×64×64, one thread")
def test_update_cost(name: str, benchmark, costs, capsys) -> None:
    rounds = [seconds for process in costs for seconds in process[name]]
    clock.load(rounds)
    benchmark.pedantic(clock.replay, rounds=len(rounds), iterations=1)
    if name in AGAINST:
        ratios = sorted(
            median(theirs / ours for theirs, ours in zip(process[AGAINST[name]], process[name], strict=True))
            for process in costs
        )
        benchmark.extra_info |= {"times_cheaper": median(ratios), "times_cheaper_by_process": ratios}
        with capsys.disabled():
            print(f"\n{name}: {median(ratios):.1f} times cheaper than {AGAINST[name]}, 16×3×64×64, one thread "
                  f"({len(ratios)} fresh processes: {', '.join(f'{ratio:.1f}' for ratio in ratios)})")  # fmt: skip
