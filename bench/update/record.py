"""What was measured of the update: raw seconds of each way at each size, and the step and the image around it."""

from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from bench import store
from bench.measurement import Measurement
from sampler import strict_json
from sampler.errors import UsageError

SCHEMA = 1


@dataclass
class Point:
    """One way at one size."""

    way: str
    shape: tuple[int, ...]
    bytes_per_element: int  # that it cannot avoid moving
    seconds: list[float] = field(default_factory=list)  # of a call, one a round
    reason: str = ""  # why there are none

    @property
    def size_mib(self) -> float:
        """Of the state."""
        return 4 * prod(self.shape) / 2**20

    @property
    def gb_per_s(self) -> list[float]:
        """Unavoidable bytes over time, one a round."""
        return [self.gb_per_s_at(seconds) for seconds in self.seconds]

    def gb_per_s_at(self, seconds: float) -> float:
        return self.bytes_per_element * prod(self.shape) / seconds / 1e9

    @property
    def median_s(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Seconds of a call: the first and the last tenth."""
        ordered = sorted(self.seconds)
        tenth = len(ordered) // 10
        return ordered[tenth], ordered[-1 - tenth]


@dataclass
class UpdateCost:
    """One run of `python -m bench update`.

    sweep: every way at every size, cold caches. in_the_loop: the ways at the workload's own shape, warm, as
    inside a step. step: the whole step with and without the fused update, by pairs; None where not asked for.
    """

    environment: dict[str, Any]
    started: str
    command: str
    device: str
    cache_bytes: int
    sweep: list[Point]
    in_the_loop: list[Point]
    step: Measurement | None = None
    interrupted: bool = False

    def at(self, size_mib: float, way: str) -> Point | None:
        return next((p for p in self.sweep if p.way == way and p.size_mib == size_mib and p.seconds), None)

    def inside(self, way: str) -> Point | None:
        return next((p for p in self.in_the_loop if p.way == way and p.seconds), None)

    @property
    def sizes_mib(self) -> list[float]:
        return sorted({p.size_mib for p in self.sweep})

    @property
    def ways(self) -> list[str]:
        return list(dict.fromkeys(p.way for p in self.sweep))

    def share_of_copy(self, point: Point) -> float | None:
        """Of the bandwidth of a copy of the same size, measured in the same rounds."""
        roof = self.at(point.size_mib, "copy")
        return None if roof is None else median(point.gb_per_s) / median(roof.gb_per_s)

    def json(self) -> dict[str, Any]:
        stored = {k: v for k, v in vars(self).items() if k not in ("sweep", "in_the_loop", "step")}
        return {
            "schema": SCHEMA, **stored, "sweep": [asdict(p) for p in self.sweep],
            "in_the_loop": [asdict(p) for p in self.in_the_loop],
            "step": None if self.step is None else self.step.json(),
        }  # fmt: skip


def save(cost: UpdateCost, path: Path) -> None:
    store.write_text(path, strict_json.compact(cost.json(), "way", "event"))


def load(path: Path) -> UpdateCost:
    """Read a stored run; refuses what is none, or of another schema."""
    try:
        stored = store.read(path)
        if stored.pop("schema") != SCHEMA:
            raise UsageError(f"{path} has another schema than {SCHEMA}, which this version reads; measure again")
        for name in ("sweep", "in_the_loop"):
            stored[name] = [Point(**{**point, "shape": tuple(point["shape"])}) for point in stored[name]]
        if stored["step"] is not None:
            stored["step"] = Measurement.from_json(stored["step"])
        return UpdateCost(**stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a whole result of `bench update` ({type(error).__name__}: {error})") from None
