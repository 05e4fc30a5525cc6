"""What `python -m bench quality` found, as it is stored: figures of every point, anchors, trial, divergence."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import store
from bench.contenders import CONTENDERS
from bench.quality import equivalence, plan
from bench.quality.blind import ByEye
from bench.quality.equivalence import NOT_JUDGED, OPEN, PASSES, UNSURE
from bench.quality.judging import Figures
from bench.quality.same_noise import Divergence
from bench.quality.trial import Power, Tried
from sampler import strict_json
from sampler.errors import UsageError

SCHEMA = 1
SAME_NOISE, PICTURES = "same noise", "pictures"  # the layers


@dataclass(frozen=True)
class Judged:
    """One point of the plan: what was drawn (digest), at what cost, and what it is worth."""

    digest: str
    steps: int
    guidance: float
    seed: int
    cpu_s: float
    figures: Figures

    def json(self) -> dict[str, Any]:
        return {**self.__dict__, "figures": self.figures.json()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Judged":
        return cls(**{**stored, "figures": Figures.from_json(stored["figures"])})


@dataclass
class Quality:
    """Raw figures of one run; the verdicts are derived from them and from the rows' budgets.

    samples: pictures of most points; floor: real test images judged as if they had been generated; ceiling: noise.
    divergence: layer 1, by row; faults: rows whose divergence could not be taken, and why.
    """

    environment: dict[str, Any]
    started: str
    command: str
    samples: int
    judged: dict[str, Judged] = field(default_factory=dict)
    floor: Figures | None = None
    ceiling: Figures | None = None
    trial: list[Tried] = field(default_factory=list)
    power: list[Power] = field(default_factory=list)
    divergence: dict[str, Divergence] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)  # by part of the work
    made: dict[str, str] = field(default_factory=dict)  # layer -> by which commit, when, by which command
    left_out: dict[str, str] = field(default_factory=dict)  # points that were not drawn on this machine, and why
    adopted: dict[str, str] = field(default_factory=dict)  # points whose shipped pictures were taken, and on what proof
    by_eye: dict[str, ByEye] = field(default_factory=dict)  # points whose pictures were rated blind

    @property
    def device(self) -> str:
        return "cuda" if "gpu" in self.environment else "cpu"

    @property
    def whole(self) -> bool:
        """Whether the curves of steps and guidance were judged, and not some rows alone."""
        return {*plan.curve(), *map(plan.guidance_point, plan.GUIDANCE)} <= set(self.judged)

    @property
    def metric_holds(self) -> bool:
        """Whether the metric passed its trial, so that it may void a row."""
        return bool(self.trial) and all(tried.right for tried in self.trial)

    def verdict(self, row: str) -> tuple[str, str]:
        """Of a row that draws other pictures, as `equivalence.verdict` has it, and why; '' where it has no budget."""
        drawn = plan.rows(self.device).get(row)
        return ("", "") if drawn is None else self._verdict_of(row, drawn.point)

    def fresh(self, row: str) -> tuple[str, str]:
        """The same by pictures of fresh seeds, on which nothing was chosen."""
        drawn = plan.rows(self.device).get(row)
        return ("", "") if drawn is None else self._verdict_of(row, drawn.point + plan.FRESH)

    def confirmed(self, row: str) -> bool:
        """Whether the row is inside its budget by the seeds that were looked at first and by fresh ones."""
        return self.verdict(row)[0] in PASSES and self.fresh(row)[0] in PASSES

    def pictures_of(self, row: str) -> str:
        """How many pictures of which seeds a row's two verdicts stand on."""
        point = plan.rows(self.device)[row].point
        first, fresh = self.judged[point], self.judged.get(point + plan.FRESH)
        again = "" if fresh is None else f", and by {fresh.figures.pictures} of seed {fresh.seed}"
        return f"{first.figures.pictures} pictures of seed {first.seed}{again}"

    def _verdict_of(self, row: str, point: str) -> tuple[str, str]:
        budget = CONTENDERS[row].budget
        if budget is None:
            return "", ""
        if point not in self.judged:
            return NOT_JUDGED, self.left_out.get(point, "its pictures are not drawn")
        judged = self.judged[point]
        verdict, why = equivalence.verdict(judged.figures.losses, budget, judged.cpu_s / judged.figures.pictures)
        if not self.metric_holds:
            return UNSURE, f"the metric did not pass its trial; it would have said {verdict}: {why}"
        return verdict, why

    def failures(self) -> list[tuple[str, str]]:
        """What turns the exit to 1: rows outside their budget or off the same noise, and a metric that fails."""
        found = [("the metric's trial", f"{t.name}: {t.verdict}, {t.why}") for t in self.trial if not t.right]
        found += [(row, why) for row, why in self.faults.items()]
        found += [(row, d.fault) for row, d in self.divergence.items() if d.fault]
        for row in plan.rows(self.device):
            verdict, why = self.verdict(row)
            if verdict == equivalence.WORSE and CONTENDERS[row].promises:
                found.append((row, f"layer 2 (other pictures): {why}"))
        return found

    def unsure(self) -> list[str]:
        return [row for row in plan.rows(self.device) if self.verdict(row)[0] in OPEN]

    def json(self) -> str:
        plain = {name: getattr(self, name) for name in ("environment", "started", "command", "samples", "faults",
                                                        "took_s", "made", "left_out", "adopted")}  # fmt: skip
        return strict_json.dumps({
            "schema": SCHEMA, **plain,
            "judged": {name: judged.json() for name, judged in self.judged.items()},
            "floor": self.floor and self.floor.json(), "ceiling": self.ceiling and self.ceiling.json(),
            "trial": [tried.json() for tried in self.trial], "power": [asdict(power) for power in self.power],
            "divergence": {row: divergence.json() for row, divergence in self.divergence.items()},
            "by_eye": {point: rated.json() for point, rated in self.by_eye.items()},
        }, separators=(",", ":"))  # fmt: skip


def load(path: Path) -> Quality:
    """A stored result; refuses a file of another kind."""
    try:
        stored = store.read(path)
        if stored.pop("schema") != SCHEMA:
            raise UsageError(f"{path} has another schema than {SCHEMA}, which this version reads; judge again")
        for name in ("floor", "ceiling"):
            stored[name] = stored[name] and Figures.from_json(stored[name])
        stored["judged"] = {name: Judged.from_json(one) for name, one in stored["judged"].items()}
        stored["trial"] = [Tried.from_json(one) for one in stored["trial"]]
        stored["power"] = [Power(**one) for one in stored["power"]]
        stored["divergence"] = {row: Divergence.from_json(one) for row, one in stored["divergence"].items()}
        stored["by_eye"] = {point: ByEye(**one) for point, one in stored.get("by_eye", {}).items()}
        return Quality(**stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no whole quality result ({type(error).__name__}: {error})") from None
