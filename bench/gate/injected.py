"""Rows with a planted slowdown of known size, to calibrate the gate with: real work of the network's own kind.

What to plant comes in the environment, INJECT = {row: {"units": n, "sleep_s": s}}: n small convolutions, as many
as the calibration found to cost what is wanted, or a sleep, which CPU time cannot see.
"""

import os
import time

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from bench.contenders import Contender
from sampler import strict_json
from sampler.posterior import posterior
from sampler.variants import Apply, Update, Variant

INJECT = "DDPM_BENCH_INJECT"


def slowed(units: int, sleep_s: float) -> Apply:
    """The posterior update with so much more to do."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 32, 5, 5, generator=generator)
    weight = torch.randn(32, 32, 3, 3, generator=generator) / 17

    def apply(x: Tensor, *rest) -> Tensor:
        y = picture
        for _ in range(units):
            y = conv2d(y, weight, padding=1).clamp(-1, 1)
        if sleep_s:
            time.sleep(sleep_s)
        return posterior(x, *rest)

    return apply


def _contender(name: str, units: int, sleep_s: float) -> Contender:
    return Contender(name, "planted", Variant(name, update=Update(lambda: slowed(units, sleep_s))))


CONTENDERS = [
    _contender(name, planted.get("units", 0), planted.get("sleep_s", 0.0))
    for name, planted in strict_json.loads(os.environ.get(INJECT, "{}")).items()
]
