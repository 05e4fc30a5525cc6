"""Quality of a combination within what is asked, from cheap to dear: stored, from pictures that are kept, drawn now.

Its pictures depend on number format, guidance interval and path alone, up to rounding: combinations that share these
share a set of pictures, as `bench.quality.plan` names them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from bench import environment
from bench import store as stores
from bench.contenders import Contender
from bench.quality import drawing, judged, plan, record, trial
from bench.quality.drawing import FROZEN, Point
from bench.quality.equivalence import LEAST, PASSES, UNSURE, WORSE, Budget, Loss, verdict
from bench.quality.judging import judge
from bench.tune.asked import LOSSLESS, Asked, budget_of
from bench.tune.space import AT, BY_NAME, REFERENCE, Choice, contender, with_value
from sampler import cpu
from sampler.errors import UsageError
from sampler.models import load_model
from sampler.trajectory import ancestral, spaced

SAME = "same"  # up to rounding: layer 1 has it
DECIDING = ("precision", "guided_between", "path")  # seams that decide the pictures
IN_THE_PLAN = {"bf16": "half", "autocast-bf16": "autocast", "autocast-fp16": "autocast-fp16", "fp16": "cast-fp16"}
PICTURES, PICTURES_OF_FEW_STEPS = 200, 400
TRIAL_STEPS = 5  # timed to foresee what drawing takes
COMPILED = 0.75  # of an eager step, about what a compiled one takes with its part of compiling


@dataclass(frozen=True)
class Judged:
    """A verdict of `equivalence` (SAME: it changes no picture) and why; what is lost, and how that is known."""

    verdict: str
    why: str
    losses: dict[str, Loss]
    source: str = ""

    @property
    def passes(self) -> bool:
        return self.verdict in (SAME, *PASSES)

    @property
    def text(self) -> str:
        if self.verdict == SAME:
            return "same pictures up to rounding (within its bound of a float64 run on the same noise)"
        lost = ", ".join(f"{name} {loss.value:.3f} [{loss.interval[0]:.3f}, {loss.interval[1]:.3f}]"
                         for name, loss in self.losses.items())  # fmt: skip
        return f"{self.verdict}: {self.why}" + (f"; lost {lost} (N = {next(iter(self.losses.values())).pictures}, "
                                                f"{self.source})" if lost else "")  # fmt: skip

    def json(self) -> dict[str, Any]:
        return {**self.__dict__, "losses": {name: loss.__dict__ for name, loss in self.losses.items()}}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Judged":
        return cls(**{**stored, "losses": {name: Loss(**loss) for name, loss in stored["losses"].items()}})


class Judge:
    """What the combinations' pictures are worth against what may be lost."""

    def __init__(
        self, asked: Asked, results: Path, store: Path = judged.STORE, picture_step_s: float = judged.PICTURE_STEP_S
    ):
        """picture_step_s: what drawing one step of one picture takes here, by which longer draws are foreseen."""
        self.asked, self.store, self.picture_step_s = asked, store, picture_step_s
        self.file = stores.stored(results / environment.machine(asked.workload.device) / "quality" / "quality.json")
        self._known: dict[str, Judged] = {}
        self._absent: set[str] = set()  # sets of pictures that were looked for in vain, and not drawn since

    def known(self, row: Contender) -> Judged | None:
        """The verdict, where it needs no drawing; None where pictures would have to be drawn first."""
        if row.lossless:
            return Judged(SAME, "it changes no picture", {})
        if self.asked.quality == LOSSLESS:
            return Judged(WORSE, "it changes pictures, and nothing may be lost", {})
        if row.name not in BY_NAME:
            return Judged(UNSURE, "its pictures cannot be drawn here: it is no combination of known seams", {})
        if why := judged.judgeable(self.asked.workload):
            return Judged(UNSURE, f"its pictures cannot be judged: {why}", {})
        name = point_name(BY_NAME[row.name], self.asked.workload.steps)
        if name not in self._known and name not in self._absent:
            if (found := self._stored(name) or self._kept(name, row.name)) is None:
                self._absent.add(name)
            else:
                self._known[name] = found
        return self._known.get(name)

    def foreseen(self, row: Contender, seconds: float) -> Judged | None:
        """`known`, or UNSURE where drawing would take longer than these seconds; None where it fits them."""
        found = self.known(row)
        if found is None:
            _, wanted, takes_s = self._to_draw(row)
            if takes_s > seconds:
                return Judged(UNSURE, f"its pictures were not drawn: {wanted} of them take about {takes_s:.0f} s, and "
                              f"{max(0.0, seconds):.0f} s are left for that; `python -m bench quality` draws those of "
                              "the shipped rows, a larger --budget these", {})  # fmt: skip
        return found

    def draw(self, row: Contender, say: Callable[[str], None]) -> Judged:
        """Draw the pictures of a row and judge them."""
        device, processes = self.asked.workload.device, cpu.usable()
        name, wanted, _ = self._to_draw(row)
        drawing.draw(partial(points, device, (row.name,)), [(name, wanted)], self.store, processes, say)
        found = self._kept(name, row.name)
        assert found is not None
        self._known[name] = replace(found, source="drawn now")
        return self._known[name]

    def _to_draw(self, row: Contender) -> tuple[str, int, float]:
        """The set that shows the row, of how many pictures, and about the seconds that drawing it takes."""
        choice, job = BY_NAME[row.name], self.asked.workload
        steps = steps_of(choice, job.steps)
        wanted = PICTURES_OF_FEW_STEPS if steps <= plan.SHORT else PICTURES
        lanes = cpu.usable() if job.device == "cpu" else 1
        return point_name(choice, job.steps), wanted, wanted * steps * self.picture_step_s / lanes

    @cached_property
    def _quality(self) -> record.Quality | None:
        """What `python -m bench quality` has found on this machine."""
        return record.load(self.file) if self.file.exists() else None

    @cached_property
    def _reference(self):
        return judged.pictures_of(plan.points(self.asked.workload.device)[plan.REFERENCE], self.store) or trial.shipped(
            "reference"
        )

    @cached_property
    def budget(self) -> Budget | None:
        """What may be lost; a share is of the reference's own kernel distance to real images."""
        if self.asked.quality == LOSSLESS:
            return None
        quality = self._quality
        if quality is not None and plan.REFERENCE in quality.judged:
            return budget_of(self.asked.quality, quality.judged[plan.REFERENCE].figures.kernel.value)
        return budget_of(self.asked.quality, judge(self._reference).kernel.value)

    def _stored(self, name: str) -> Judged | None:
        quality = self._quality
        if quality is None or name not in quality.judged:
            return None
        if not quality.metric_holds:
            return Judged(UNSURE, "the metric did not pass its trial on this machine", {})
        commit = quality.environment["commit"]
        return self._of(quality.judged[name].figures.losses, f"judged {quality.started[:10]}, commit {commit}")

    def _kept(self, name: str, row: str) -> Judged | None:
        """From pictures drawn before by the very code that is here now."""
        known = points(self.asked.workload.device, (row,))
        seen = judged.pictures_of(known[name], self.store) if name in known else None
        if seen is None:
            return None
        reference = self._reference
        figures = judge(seen.first(min(len(seen), len(reference))), reference)
        return self._of(figures.losses, "kept pictures")

    def _of(self, losses: dict[str, Loss], source: str) -> Judged:
        if not losses or next(iter(losses.values())).pictures < LEAST:
            return Judged(UNSURE, "too few pictures to say anything", losses, source)
        assert self.budget is not None
        return Judged(*verdict(losses, self.budget), losses, source)


def picture_step_s(device: str) -> float:
    """About the seconds that one step of one picture takes on this machine, drawn compiled on one thread: by some steps
    that are drawn eagerly."""
    model = load_model(plan.MODEL, device)
    shard = drawing.SHARD if device == "cpu" else drawing.SHARD_CUDA
    path = ancestral(model.schedule, spaced(model.schedule, TRIAL_STEPS))
    threads, taken = torch.get_num_threads(), list[float]()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            start_s = time.perf_counter()
            drawing.drawn_by(drawing.BATCHED, model, path, shard, plan.SCALE)
            taken.append(time.perf_counter() - start_s)
    finally:
        torch.set_num_threads(threads)
    return COMPILED * min(taken) / (TRIAL_STEPS * shard)


def point_name(choice: Choice, steps: int) -> str:
    """The set of pictures that shows a combination, as the plan names it."""
    precision, limited, path = (choice[AT[seam]] for seam in DECIDING)
    kind = path.partition("/")[0]
    parts = [IN_THE_PLAN.get(precision, precision), limited, kind if kind or precision or limited else "ancestral"]
    return "-".join([*filter(None, parts), str(steps_of(choice, steps))])


def steps_of(choice: Choice, steps: int) -> int:
    """Steps of a combination's path, where the reference takes so many."""
    divisor = choice[AT["path"]].partition("/")[2]
    return max(1, round(steps / int(divisor))) if divisor else steps


def points(device: str, rows: tuple[str, ...] = ()) -> dict[str, Point]:
    """The plan's points, and those that show these rows: drawn by the quickest that differs from them by rounding."""
    known = dict(plan.points(device))
    model = load_model(plan.MODEL)
    for row in rows:
        choice = BY_NAME[row]
        name = point_name(choice, model.schedule.steps)
        if name in known:
            continue
        shown = REFERENCE
        for seam in DECIDING:
            shown = with_value(shown, seam, choice[AT[seam]])
        made = contender(shown)
        if made is None:
            raise UsageError(f"{row!r} has no eager counterpart that draws its pictures")
        variant = replace(FROZEN if device == "cpu" else drawing.BATCHED, name=f"tune, {name}",
                          precision=made.variant.precision, guided_between=made.variant.guided_between)  # fmt: skip
        known[name] = Point(name, made.path(model, model.schedule.steps), variant=variant, device=device)
    return known
