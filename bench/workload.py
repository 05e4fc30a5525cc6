"""What is measured: the model, the batch, the steps, the guidance, and how long to take over it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sampler.errors import UsageError, unknown
from sampler.models import RECIPES, checked_device


@dataclass(frozen=True)
class Workload:
    """One job: everything that changes the work done or the time given to it, units in the names."""

    model: str = "fashion-mnist"
    device: str = "cpu"
    threads: int = 1
    batch: int = 4
    steps: int = 1000
    guidance: float = 3.0
    seed: int = 0
    preset: str = "quick"
    processes: int = 3  # fresh processes a row: the unit of replication
    max_processes: int = 6  # more, for rows whose interval is still too wide
    rounds: int = 10  # pairs a row in each process
    slice_steps: int = 5  # timed steps of a slice, after one that is not
    target_half_width: float = 0.03
    budget_s: float = 270.0  # for everything after the first calls
    batch_axis: tuple[int, ...] = (1, 4, 16)
    quality_samples: int = 0  # pictures a row for the quality columns, 0: those of the timed whole run

    def __post_init__(self):
        if self.model not in RECIPES:
            raise unknown("model", self.model, RECIPES)
        for name, low in (("threads", 1), ("batch", 1), ("processes", 1), ("rounds", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} = {getattr(self, name)}; it must be at least {low}")
        if not 1 <= self.steps <= 1000:
            raise UsageError(f"steps = {self.steps} is outside 1…1000, the model's timesteps")
        if not self.budget_s > 0:
            raise UsageError(f"budget = {self.budget_s:g} s; it must be positive")

    def json(self) -> dict[str, Any]:
        return asdict(self)


_PRESETS: dict[str, dict[str, Any]] = {
    # to see that everything runs; its intervals are wide
    "smoke": {
        "processes": 1, "max_processes": 1, "rounds": 2, "slice_steps": 2, "steps": 20, "budget_s": 60.0,
        "batch_axis": (1, 4),
    },
    # the default: intervals within ±3 %
    "quick": {},
    # every whole run, more pairs, the pictures judged
    "full": {
        "processes": 5, "max_processes": 8, "rounds": 20, "budget_s": 2400.0, "batch_axis": (1, 4, 16, 64),
        "quality_samples": 40, "target_half_width": 0.02,
    },
}  # fmt: skip
PRESETS = tuple(_PRESETS)


def workload(preset: str = "quick", **given: Any) -> Workload:
    """A preset's workload with what is given (and not None) put in its place."""
    if preset not in _PRESETS:
        raise unknown("preset", preset, PRESETS)
    chosen = {name: value for name, value in given.items() if value is not None}
    made = replace(Workload(), preset=preset, **{**_PRESETS[preset], **chosen})
    checked_device(made.device)  # here alone: a result stored on a GPU machine can be read on any
    return made


def from_json(stored: dict[str, Any]) -> Workload:
    """The workload of a stored result."""
    return Workload(**{**stored, "batch_axis": tuple(stored["batch_axis"])})
