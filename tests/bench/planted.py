"""Contenders that fail in known ways, to see the harness catch them: `measure(..., plant="tests.bench.planted")`.

Each counts the steps that it was asked for in its own process.
"""

import os
import signal

from torch import Tensor

from bench.contenders import Contender, full_path
from sampler.posterior import posterior
from sampler.variants import Update, Variant

PREPARATION = 2  # steps of the first call, in every process
WARM_SLICE = 3  # then one slice: a step that is not timed and two that are


def _raises(x: Tensor, *rest) -> Tensor:
    raise RuntimeError("planted to raise")


def _differs(x: Tensor, *rest) -> Tensor:
    return posterior(x, *rest) + 0.02


def _nan(x: Tensor, *rest) -> Tensor:
    return x * float("nan")


def _after(steps: int, do):
    taken = 0

    def apply(x: Tensor, *rest) -> Tensor:
        nonlocal taken
        taken += 1
        if taken > steps:
            do()
        return posterior(x, *rest)

    return apply


def _raise() -> None:
    raise ValueError("planted to raise late")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def unprobed_path(model, steps: int):
    """The reference's path, but not by name: a row with a path of its own is not compared step by step."""
    return full_path(model, steps)


CONTENDERS = [
    Contender("planted-raises", "raises at once", Variant("planted-raises", update=Update(lambda: _raises))),
    Contender("planted-differs", "adds 0.02", Variant("planted-differs", update=Update(lambda: _differs))),
    Contender("planted-nan", "returns NaN", Variant("planted-nan", update=Update(lambda: _nan))),
    Contender("planted-late", "raises when it is first timed",
              Variant("planted-late", update=Update(lambda: _after(PREPARATION, _raise))), path=unprobed_path),
    Contender("planted-dies", "is killed in its first pair",
              Variant("planted-dies", update=Update(lambda: _after(PREPARATION + WARM_SLICE, _die))),
              path=unprobed_path),
]  # fmt: skip
