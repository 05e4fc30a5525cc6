"""The quality of the rows of one run: from pictures drawn before, by content, or from as many as the time allows."""

import time
from collections.abc import Iterable
from pathlib import Path

from bench import store as stores
from bench.contenders import CONTENDERS, Contender
from bench.quality import drawing, plan, trial
from bench.quality.drawing import Point
from bench.quality.equivalence import JUDGED_FROM, LEAST
from bench.quality.judging import Seen, judge, see
from bench.workload import Workload
from sampler.files import here_or_in_the_cache
from sampler.models import load_model

STORE = here_or_in_the_cache(stores.SCRATCH / "quality")
PICTURE_STEP_S = 0.004  # of an eager step with batched guidance on a slow core, to foresee what drawing takes


def judgeable(workload: Workload) -> str:
    """Why this workload's rows cannot be judged, or '': the pictures are those of one model at one setting."""
    if workload.model != plan.MODEL:
        return f"there are no features of real pictures for {workload.model}"
    if workload.steps != 1000 or workload.guidance != plan.SCALE:
        return f"pictures are judged at 1,000 steps and guidance {plan.SCALE:g}"
    return ""


def measure(workload: Workload, names: Iterable[str], seconds: float, emit, store: Path = STORE) -> None:
    """Emit what the rows' pictures are worth, the cheap rows first, and last what claims to change none.

    Where none are kept, as many as a verdict needs are drawn, if that fits the time; fewer would say nothing.
    """
    if judgeable(workload):
        return
    points, rows, stop_at = plan.points(workload.device), plan.rows(workload.device), time.monotonic() + seconds
    chosen = sorted((n for n in names if n in rows),
                    key=lambda n: (CONTENDERS[n].lossless, points[rows[n].point].path.steps))  # fmt: skip
    for name in chosen:
        emit(event="doing", text=f"judging the pictures of {name}", row=name)
        point = points[rows[name].point]
        seen, source = pictures_of(point, store), "kept"
        if seen is None:
            if _takes_s(point.path.steps) > stop_at - time.monotonic():
                continue
            seen, source = see(*drawing.draw_now(point, JUDGED_FROM)), "drawn now"
        reference = pictures_of(points[plan.REFERENCE], store) or trial.shipped("reference")
        figures = judge(seen.first(min(len(seen), len(reference))), reference)
        emit(event="quality", row=name, point=point.name, digest=point.digest, source=source, figures=figures.json())


def measure_own(workload: Workload, contender: Contender, seconds: float, emit, store: Path = STORE) -> None:
    """The same for a row that is not shipped and draws other pictures: drawn by what was timed, kept nowhere."""
    if judgeable(workload) or contender.lossless or contender.loop is not None or contender.textbook:
        return
    model = load_model(workload.model, workload.device)
    path = contender.path(model, workload.steps)
    if _takes_s(path.steps) > seconds:
        return
    emit(event="doing", text=f"judging the pictures of {contender.name}", row=contender.name)
    seen = see(*drawing.drawn_by(contender.variant, model, path, JUDGED_FROM, workload.guidance))
    reference = pictures_of(plan.points(workload.device)[plan.REFERENCE], store) or trial.shipped("reference")
    figures = judge(seen, reference)
    emit(event="quality", row=contender.name, point="", digest="", source="drawn now", figures=figures.json())


def _takes_s(steps: int) -> float:
    """About how long drawing as many pictures as a verdict needs takes."""
    return steps * JUDGED_FROM * PICTURE_STEP_S


def pictures_of(point: Point, store: Path) -> Seen | None:
    """All kept pictures of a point, if there are enough to say anything."""
    kept = drawing.kept(point, store)
    return None if kept is None or len(kept.labels) < LEAST else see(kept.images, kept.labels)
