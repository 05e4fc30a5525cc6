"""Contenders that fail in known ways, to see the harness catch them: `measure(..., plant="tests.bench.planted")`.

Each counts the steps that it was asked for in its own process.
"""

import os
import signal
import sys
import time

from torch import Tensor

from bench.contenders import CONTENDERS as SHIPPED
from bench.contenders import Contender, full_path
from sampler.posterior import posterior
from sampler.runtime import eager, one_by_one
from sampler.variants import Update, Variant

PREPARATION = 3  # steps of the first call, in every process
FEW_SLICES = 40  # steps that two slices (of 4 to 10 steps) after the preparation and a warm one never reach


def _raises(x: Tensor, *rest) -> Tensor:
    raise RuntimeError("planted to raise")


def _differs(x: Tensor, *rest) -> Tensor:
    return posterior(x, *rest) + 0.02


def _nan(x: Tensor, *rest) -> Tensor:
    return x * float("nan")


def _in_a_worker() -> bool:
    """Whether this is a process that times, not one that inspects."""
    return getattr(sys.modules["__main__"].__spec__, "name", "") == "bench.worker"


def _after(steps: int, do):
    taken = 0
    in_a_worker = _in_a_worker()

    def apply(x: Tensor, *rest) -> Tensor:
        nonlocal taken
        taken += in_a_worker  # an inspection is let through
        if taken > steps:
            do()
        return posterior(x, *rest)

    return apply


def _raise() -> None:
    raise ValueError("planted to raise late")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep() -> None:
    time.sleep(3600)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleeps(x: Tensor, *rest) -> Tensor:
    _sleep()
    return x


def _in_a_whole_run(do):
    def apply(x: Tensor, *rest) -> Tensor:
        frame = sys._getframe()
        while (frame := frame.f_back) is not None:
            if frame.f_globals["__name__"] == "bench.whole_runs":
                do()
        return posterior(x, *rest)

    return apply


def _runs_out_of_memory(x: Tensor, *rest) -> Tensor:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def _runs_out_of_memory_at_64(x: Tensor, *rest) -> Tensor:
    return posterior(x, *rest) if len(x) < 64 else _runs_out_of_memory(x)


def _dies(x: Tensor, *rest) -> Tensor:
    _die()
    return x


def _eager_after_all(step):
    """Claims to be compiled, and is called as it is."""
    return eager(step)


def _idle_when_timed(step):
    """Does its work while it is looked at, and none while it is timed."""
    return one_by_one(lambda x, *rest: x) if _in_a_worker() else eager(step)


def unprobed_path(model, steps: int):
    """The reference's path, but not by name: a row with a path of its own is not compared step by step."""
    return full_path(model, steps)


CONTENDERS = [
    Contender("planted-raises", "raises at once", Variant("planted-raises", update=Update(lambda: _raises))),
    Contender("planted-differs", "adds 0.02", Variant("planted-differs", update=Update(lambda: _differs))),
    Contender("planted-nan", "returns NaN", Variant("planted-nan", update=Update(lambda: _nan))),
    Contender("planted-late", "raises when it is first timed",
              Variant("planted-late", update=Update(lambda: _after(PREPARATION, _raise))), path=unprobed_path),
    Contender("planted-dies", "is killed when it was timed a few times",
              Variant("planted-dies", update=Update(lambda: _after(FEW_SLICES, _die))),
              path=unprobed_path),
    Contender("planted-dies-built", "is killed when it is built to be timed",
              Variant("planted-dies-built", update=Update(lambda: _after(PREPARATION - 1, _die))), path=unprobed_path),
    Contender("planted-dies-early", "is killed at once",
              Variant("planted-dies-early", update=Update(lambda: _dies))),
    Contender("planted-sleeps-early", "sleeps for ever in its first call",
              Variant("planted-sleeps-early", update=Update(lambda: _sleeps))),
    Contender("planted-sleeps", "sleeps for ever in a timed slice",
              Variant("planted-sleeps", update=Update(lambda: _after(PREPARATION, _sleep))), path=unprobed_path),
    Contender("planted-sleeps-whole", "sleeps for ever in a whole run",
              Variant("planted-sleeps-whole", update=Update(lambda: _in_a_whole_run(_sleep))), path=unprobed_path),
    Contender("planted-stops", "stops its process in a timed slice",
              Variant("planted-stops", update=Update(lambda: _after(PREPARATION, _stop))), path=unprobed_path),
    Contender("planted-greedy", "asks for more memory than there is",
              Variant("planted-greedy", update=Update(lambda: _runs_out_of_memory))),
    Contender("planted-large", "asks for more memory than there is at a batch of 64",
              Variant("planted-large", update=Update(lambda: _runs_out_of_memory_at_64))),
    Contender("planted-idle", "works only while it is inspected",
              Variant("planted-idle", runtime=_idle_when_timed)),
    Contender("planted-uncompiled", "claims to be compiled and is not",
              Variant("planted-uncompiled", runtime=_eager_after_all), engaged=SHIPPED["compiled"].engaged),
]  # fmt: skip
