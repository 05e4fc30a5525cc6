"""What is asked of the tuner: a job, and budgets of quality, memory and time; how they are written on a command
line."""

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import store
from bench import workload as workloads
from bench.contenders import AT_EQUAL_STEPS, AT_FEWER_STEPS
from bench.quality.equivalence import Budget
from bench.workload import Workload
from sampler.errors import UsageError
from sampler.own_models import origin

LOSSLESS = "lossless"
STATED = {"equal-steps": AT_EQUAL_STEPS, "fewer-steps": AT_FEWER_STEPS}  # the budgets of the shipped rows
SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
DURATIONS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
MODES = ("max", "throughput", "latency")  # of --batch, beside a number
SPACE = "bench.tune.space"


@dataclass(frozen=True)
class Asked:
    """The question: everything that decides the answer, beside what is measured.

    quality: 'lossless', one of STATED, or a share such as '2%'. memory_bytes: of live tensors at a step's peak on a
    CPU, of what the allocator holds on CUDA. images: how many are wanted, start-up included; None: no end of them.
    batch: 'max' (that fits the memory), 'throughput', 'latency', or '' where the workload's own is meant.
    budget_s: wall seconds for all of it. contenders: modules with further rows to race.
    """

    workload: Workload
    quality: str = LOSSLESS
    memory_bytes: float | None = None
    images: int | None = None
    batch: str = ""
    budget_s: float = 600.0
    contenders: str = ""

    def __post_init__(self):
        share_of(self.quality)
        if self.memory_bytes is not None and not self.memory_bytes > 0:
            raise UsageError(f"memory = {self.memory_bytes:g} bytes; it must be positive")
        if self.images is not None and self.images < 1:
            raise UsageError(f"images = {self.images}; at least one must be wanted")
        if not 0 < self.budget_s < math.inf:
            raise UsageError(f"budget = {self.budget_s:g} s; it must be positive")

    @property
    def plant(self) -> str:
        """The modules in which a worker finds the rows."""
        return ",".join(filter(None, (SPACE, self.contenders)))

    @property
    def batches(self) -> float | None:
        """How many batches are wanted."""
        return None if self.images is None else self.images / self.workload.batch

    @property
    def name(self) -> str:
        """Of the question, for a file: two that could have different answers have different names."""
        model, batch = store.named(self.workload.model), self.batch or self.workload.batch
        parts = [model, f"batch-{batch}", self.quality.replace("%", "pct")]
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 2**20:g}MiB")
        if self.images is not None:
            parts.append(f"{self.images}-images")
        if self.contenders:
            origins = ",".join(origin(f"{module}:") for module in self.contenders.split(","))
            parts.append(f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.contenders).strip('-')}-{store.digest(origins)}")
        usual = {"threads": 1, "guidance": Workload.guidance, "steps": self.workload.timesteps, "seed": 0}
        parts += [f"{field}-{value:g}" for field in usual if (value := getattr(self.workload, field)) != usual[field]]
        return "_".join(parts)

    def differs(self, stored: "Asked") -> list[str]:
        """In what another question of the same name differs: an own model may have changed, two names be alike."""
        mine, theirs = self.workload, stored.workload
        pairs = {"model": (mine.model, theirs.model), "own": (mine.own, theirs.own),
                 "contenders": (self.contenders, stored.contenders)}  # fmt: skip
        return [name for name, (one, other) in pairs.items() if one != other]

    def at(self, batch: int) -> "Asked":
        """The same with another batch."""
        return replace(self, workload=replace(self.workload, batch=batch))

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "workload": self.workload.json()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Asked":
        return cls(**{**stored, "workload": workloads.from_json(stored["workload"])})


def share_of(quality: str) -> float | None:
    """'2%' as 0.02; None for a budget that has a name."""
    if quality == LOSSLESS or quality in STATED:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", quality)
    if not match or not 0 < float(match[1]) <= 100:
        raise UsageError(f"quality {quality!r} is none of {LOSSLESS}, {', '.join(STATED)}, or a share such as 2%")
    return float(match[1]) / 100


def budget_of(quality: str, reference_kernel: float) -> Budget | None:
    """What may be lost at most; None: nothing. reference_kernel: the reference's own kernel distance to real images."""
    if quality == LOSSLESS:
        return None
    if quality in STATED:
        return STATED[quality]
    share = share_of(quality)
    assert share is not None
    return Budget(
        kernel=share * reference_kernel, accuracy=share, diversity=share, measured="the reference's own pictures",
        reason=f"kernel distance and diversity at most {quality} worse, labels recognised at most {quality} less",
    )  # fmt: skip


def batch_of(batch: int | str) -> tuple[int | None, str]:
    """(images at once, '') of a number, (None, mode) of one of MODES."""
    if batch in MODES:
        return None, str(batch)
    if not str(batch).isdecimal() or int(batch) < 1:
        raise UsageError(f"batch {batch!r} is neither a number from 1 on nor one of {', '.join(MODES)}")
    return int(batch), ""


def bytes_of(text: str) -> float:
    """'8GiB', '500 MB' or a number of bytes."""
    return _measured(text, SIZES, "memory", "8GiB, 500MB or a number of bytes")


def seconds_of(text: str) -> float:
    """'10m', '90s', '1.5h' or a number of seconds."""
    return _measured(text, DURATIONS, "budget", "10m, 90s, 1.5h or a number of seconds")


def _measured(text: str, units: dict[str, int], what: str, like: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].lower() not in units:
        raise UsageError(f"{what} {text!r} is not understood; write {like}")
    return float(match[1]) * units[match[2].lower()]
