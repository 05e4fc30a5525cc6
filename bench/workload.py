"""What is measured: the model, the batch, the steps, the guidance, and how long to take over it."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import own_model
from sampler.errors import UsageError, unknown
from sampler.model_check import Facts
from sampler.models import RECIPES, checked_device
from sampler.own_models import HOW, is_own


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
    processes: int = 4  # fresh processes: the unit of replication
    rounds: int = 8  # pairs a row in each turn of a process
    max_turns: int = 8  # two for every row, then only for those whose interval is still too wide
    slice_steps: int = 1  # timed steps of a slice, after some that are not
    target_half_width: float = 0.03
    budget_s: float = 160.0  # for everything that is timed: pairs, other batch sizes, whole runs
    building_s: float | None = None  # what building may take beside it; the rest is taken off it, a third at most
    whole_share: float = 0.35  # of the budget, for whole runs that the slices are held against
    batch_axis: tuple[int, ...] = (1, 4, 16)
    quality_s: float = 16.0  # seconds in which pictures may be drawn to be judged; those drawn before cost nothing
    same_noise: bool = True  # hold each row against a float64 run, which a large network on a device has no time for
    own: Facts | None = None  # what was found of a model that is not a shipped one

    def __post_init__(self):
        if self.own is None and self.model not in RECIPES:
            raise UsageError(f"{unknown('model', self.model, RECIPES)}; or your own: {HOW}")
        for name, low in (("threads", 1), ("batch", 1), ("processes", 1), ("rounds", 1), ("max_turns", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} = {getattr(self, name)}; it must be at least {low}")
        if not 1 <= self.steps <= self.timesteps:
            raise UsageError(f"steps = {self.steps} is outside 1…{self.timesteps}, the model's timesteps")
        if not math.isfinite(self.guidance):
            raise UsageError(f"guidance = {self.guidance}; it must be a finite number")
        if not self.budget_s > 0:
            raise UsageError(f"budget = {self.budget_s:g} s; it must be positive")

    @property
    def timesteps(self) -> int:
        """Of the model's schedule."""
        return 1000 if self.own is None else self.own.timesteps

    def json(self) -> dict[str, Any]:
        return asdict(self)


_PRESETS: dict[str, dict[str, Any]] = {
    # to see that everything runs; its intervals are wide
    "smoke": {
        "processes": 1, "rounds": 1, "max_turns": 2, "slice_steps": 2, "steps": 20, "budget_s": 60.0,
        "batch_axis": (1, 4),
    },
    # the default: intervals within ±3 %, and six minutes in all where compilers' caches are filled
    "quick": {"building_s": 65.0, "whole_share": 0.3},
    # for `make gpu`, whose minutes also hold the tests: fewer processes, one batch size; where they are three, one
    "gpu": {"processes": 3, "rounds": 6, "max_turns": 4, "batch": 16, "batch_axis": (16,)},
    "gpu-short": {"processes": 1, "rounds": 6, "max_turns": 4, "batch": 16, "batch_axis": (16,)},
    "gpu-large": {
        "processes": 1, "rounds": 4, "max_turns": 4, "batch": 256, "batch_axis": (256,), "same_noise": False,
    },
    # every whole run, more pairs, the pictures judged
    "full": {
        "processes": 6, "rounds": 16, "max_turns": 20, "budget_s": 1800.0, "batch_axis": (1, 4, 16, 64),
        "quality_s": 180.0, "target_half_width": 0.02,
    },
}  # fmt: skip
PRESETS = tuple(_PRESETS)
_RETIRED = {"max_processes", "quality_samples"}  # fields that older results hold


def workload(preset: str = "quick", **given: Any) -> Workload:
    """A preset's workload with what is given (and not None) put in its place."""
    if preset not in _PRESETS:
        raise unknown("preset", preset, PRESETS)
    chosen = {name: value for name, value in given.items() if value is not None}
    # here alone: a result of another machine can be read where its device, or its model, is not
    checked_device(chosen.get("device", Workload.device))
    model, usual = chosen.get("model", Workload.model), _PRESETS[preset]
    own = own_model.facts(model, chosen.get("device", Workload.device)) if is_own(model) else None
    if "budget_s" in chosen:
        usual = {**usual, "building_s": None}  # who asks for so many seconds gets them
    return replace(Workload(), preset=preset, **{**usual, **_fitting(own, usual, chosen), **chosen})


def _fitting(own: Facts | None, preset: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """What an own model is measured with where nothing else is said."""
    if own is None:
        return {}
    if not own.guidable and chosen.get("guidance", 1) != 1:
        lacks = "takes no labels" if not own.classes else "has no label for 'no label'"
        raise UsageError(f"guidance = {chosen['guidance']:g}, but model {own.name!r} {lacks}; it is 1 there")
    return {
        "own": own,
        "steps": min(own.timesteps, preset.get("steps", own.timesteps)),
        "guidance": Workload.guidance if own.guidable else 1.0,
    }


def from_json(stored: dict[str, Any]) -> Workload:
    """The workload of a stored result, of this version or an older one."""
    given = {name: value for name, value in stored.items() if name not in _RETIRED}
    own = Facts.from_json(given["own"]) if given.get("own") else None
    return Workload(**{**given, "batch_axis": tuple(stored["batch_axis"]), "own": own})
