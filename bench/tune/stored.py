"""Stored answers: `bench.fastest` finds the one for a model on this machine, or falls back to what is always safe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import environment, store
from bench.contenders import CONTENDERS, Path_, full_path
from bench.tune.asked import LOSSLESS, Asked, batch_of, bytes_of
from bench.tune.record import Tuning, load
from bench.tune.space import BY_NAME, contender
from bench.workload import workload
from sampler.errors import UsageError
from sampler.models import Model
from sampler.trajectory import Trajectory
from sampler.variants import REFERENCE, Variant


@dataclass(frozen=True, eq=False)
class Fastest:
    """What to turn on. variant: for `sampler.sample` or `sampler.variants.build`; path(model, steps): its trajectory.

    stored: whether a tuning of this model on this machine says so; why: which one, or why none does.
    """

    variant: Variant
    path: Path_
    batch: int
    stored: bool
    why: str

    def trajectory(self, model: Model, steps: int | None = None) -> Trajectory:
        """The path for a model: as many steps as the reference would be asked for (default: every timestep)."""
        return self.path(model, model.schedule.steps if steps is None else steps)


def fastest(
    model: str = "fashion-mnist",
    *,
    device: str = "cpu",
    batch: int | str = 4,
    quality: str = LOSSLESS,
    memory: str | None = None,
    images: int | None = None,
    contenders: str = "",
    results: Path | None = None,
    fingerprint: Callable[[str], dict] = environment.fingerprint,
) -> Fastest:
    """The stored answer of `python -m bench tune` to this question on this machine, or the reference; it says which.

    model: a shipped model's name, or your own as `package.module:factory`. batch, quality, memory, images,
    contenders: as the command takes them. Raises UsageError for a question that cannot be asked.
    """
    number, mode = batch_of(batch)
    job = workload("quick", model=model, device=device, batch=number)
    question = Asked(job, quality, None if memory is None else bytes_of(memory), images, mode, contenders=contenders)
    folder = (results or store.of_model(model)) / environment.machine(device) / "tune"
    path = store.stored(folder / f"{question.name}.json")
    if not path.exists():
        return _safe(question, f"no tuning of {model!r} for this question is stored for this machine")
    try:
        tuning = load(path)
    except UsageError as error:
        return _safe(question, str(error))
    if differing := environment.differences(tuning.environment, fingerprint(device)):
        return _safe(question, f"{path.name} was tuned in another environment: {'; '.join(differing)}")
    if differing_in := question.differs(tuning.asked):
        return _safe(question, f"{path.name} answers another question ({', '.join(differing_in)})")
    if not tuning.confirmed:
        return _safe(question, f"{path.name} was not confirmed in fresh processes")
    return _of(tuning, path)


def _of(tuning: Tuning, path: Path) -> Fastest:
    row = contender(BY_NAME[tuning.choice]) if tuning.choice in BY_NAME else CONTENDERS.get(tuning.choice)
    if row is None:
        return _safe(tuning.asked, f"{path.name} chose {tuning.choice!r}, which is no combination of known seams")
    why = f"{tuning.choice}, tuned {tuning.started} (commit {tuning.environment['commit']}): {path.name}"
    return Fastest(row.variant, row.path, tuning.asked.workload.batch, True, why)


def _safe(question: Asked, why: str) -> Fastest:
    return Fastest(REFERENCE, full_path, question.workload.batch, False, f"the reference: {why}; "
                   "`python -m bench tune` finds out")  # fmt: skip
