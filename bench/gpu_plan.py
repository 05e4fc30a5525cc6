"""What `python -m bench gpu` runs on a CUDA device, in which order and within which minutes.

A device is often lent for a quarter of an hour, its start included: the part `first` and the part `rest` fit one such
sitting, `formats` and `large` another, `others` a third. What nobody has measured stands before what can be repeated:
the update and the table before the tests.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import store
from bench.update.figure import fused_row
from sampler.errors import UsageError

RISKIEST = (
    "all-equal-steps-cuda"  # compiled, captured, channels-last, half precision, our kernel: tried before all else
)
# beside the reference: each is looked at alone and built three times, and no more than these fit the minutes
ROWS = ("textbook", "batched-cfg", "fused-drawn", "cuda-graph", "fused-graph", "all-lossless-cuda", RISKIEST)
REST = ("textbook", "compiled", "compiled-graph", "cuda-graph-5", "tf32", "cast-bf16")
OTHERS = ("textbook", "channels-last", "compiled-update", "fused-update", "fused-guided", "fused-fed")
FORMATS = ("textbook", "autocast-bf16", "autocast-fp16", "cast-fp16", "limited-guidance", "strided", "ddim",
           "all-together-cuda")  # fmt: skip
LARGE = ("textbook", RISKIEST)
TESTS = ("tests/kernels", "tests/sampler")  # where those that need a device are; the others need more packages
PYTHON = (sys.executable, "-u", "-m")


@dataclass(frozen=True)
class Stage:
    """A program and how long it may take. command(seconds): its arguments, told how long it has; none: left out.

    failed(): told where it fails or runs over; what follows from it for the later stages, in a sentence.
    """

    name: str
    seconds: float
    command: Callable[[float], Sequence[str]]
    failed: Callable[[], str] = lambda: ""


@dataclass
class Asked:
    """How long, where to, and of what a table is made. machine: the results' folder below `out`."""

    minutes: float
    out: Path
    machine: str
    batch: int
    rows: list[str]
    began: float = field(default_factory=time.time)

    def bench(self, command: str, *options: str) -> list[str]:
        return [*PYTHON, "bench", command, "--device", "cuda", *options]

    def table(self, share: float, preset: str = "gpu", *more: str) -> Stage:
        """A table of the rows as they are when its turn comes; of its time, what is timed takes a third."""

        def command(seconds: float) -> list[str]:
            return self.bench("run", "--preset", preset, "--rows", ",".join(self.rows), "--batch", str(self.batch),
                              *more, "--budget", f"{0.3 * seconds:.0f}", "--out", str(self.out))  # fmt: skip

        return Stage("the table", share * 60 * self.minutes, command)

    def drop(self, row: str) -> str:
        """Leave a row out of the tables to come."""
        if row not in self.rows:
            return ""
        self.rows.remove(row)
        return f"{row} is left out of the table; its reason stands above"

    @property
    def measured(self) -> Path | None:
        """The table that was measured since this began, where it holds the row of the fused update."""
        try:
            newest = store.newest(self.out, self.machine)
            if newest.stat().st_mtime >= self.began and store.load(newest).row(fused_row("cuda")).speedup is not None:
                return newest
        except UsageError:
            return None
        return None


def first(asked: Asked) -> list[Stage]:
    """Facts of the machine, the riskiest row, the update, the table, the tests."""
    whole_s = 60 * asked.minutes
    trial = tempfile.gettempdir() + "/ddpm-bench-trial"

    def try_it(seconds: float) -> list[str]:
        return asked.bench("run", "--preset", "smoke", "--rows", RISKIEST, "--batch", str(asked.batch), "--budget", "8",
                           "--out", trial)  # fmt: skip

    def update(seconds: float) -> list[str]:
        return asked.bench("update", "--budget", f"{0.3 * seconds:.0f}", "--step-budget", "0", "--out", str(asked.out))

    def step(seconds: float) -> list[str]:
        stored = asked.out / asked.machine / "update" / "update.json"
        if (table := asked.measured) is None or not stored.is_file():
            return []
        return asked.bench("update", "--again", str(stored), "--step-from", str(table))

    tests = [*PYTHON, "pytest", *TESTS, "-m", "gpu", "-q", "-ra", "-p", "no:cacheprovider"]
    return [
        Stage("the machine", 0.06 * whole_s, lambda seconds: asked.bench("doctor")),
        Stage(f"a trial of {RISKIEST}", 0.13 * whole_s, try_it, lambda: asked.drop(RISKIEST)),
        Stage("the update alone", 0.2 * whole_s, update),
        asked.table(0.36),
        Stage("the update in its step", 0.03 * whole_s, step),
        Stage("the tests that need the device", 0.22 * whole_s, lambda seconds: tests),
    ]


def table_alone(preset: str, *more: str) -> Callable[[Asked], list[Stage]]:
    """One table; what each row holds in memory is part of it."""
    return lambda asked: [asked.table(1.0, preset, *more)]


@dataclass(frozen=True)
class Part:
    """What one call of the command does, and the minutes, the batch and the rows that it does it with by default."""

    what: str
    minutes: float
    batch: int
    rows: tuple[str, ...]
    stages: Callable[[Asked], list[Stage]]
    then: str = ""  # what to do next


PARTS = {
    "first": Part("the machine, the update alone, the rows that lead to the fastest lossless one, the tests",
                  8, 16, ROWS, first, "where minutes are left: make gpu-rest"),
    "rest": Part("compiled rows, a graph over five steps, two number formats, in one process", 3, 16, REST,
                 table_alone("gpu-short")),
    "others": Part("the rows in between", 6, 16, OTHERS, table_alone("gpu")),
    "formats": Part("the rows that draw other pictures", 6, 16, FORMATS, table_alone("gpu")),
    "large": Part("a network of 37.8 M parameters, without layer 1", 6, 256, LARGE,
                  table_alone("gpu-large", "--model", "cifar10-size")),
}  # fmt: skip
