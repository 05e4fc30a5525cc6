"""Every combination measured, once, as `python -m bench run` measures rows; and the tuner's answers held against it."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from bench import store
from bench.contenders import REFERENCE
from bench.measurement import Measurement, Row
from bench.run import measure
from bench.students_t import Interval
from bench.tune import allowed as may
from bench.tune.answer import percent
from bench.tune.asked import Asked
from bench.tune.quality import Judge
from bench.tune.record import Tuning, load, raced
from bench.tune.space import name_of
from sampler.errors import UsageError

WITHIN, SHARE = 0.03, 1 / 5  # of the best's time, and of the time that measuring everything takes
# of an interval that needs no longer: less than the differences it is to show; and turns of each process to get there
HALF_WIDTH, MOST_TURNS = 0.02, 20


def rows(asked: Asked, results: Path) -> list[str]:
    """The combinations that the tuner may race, all of them."""
    allowed, _ = may.labels(asked)
    forbidden = may.forbidden(allowed, Judge(asked, results), math.inf)
    return [name_of(choice) for choice in may.product(allowed) if choice not in forbidden]


def measure_all(asked: Asked, results: Path, say, command: str) -> Measurement:
    """Each inspected in a process of its own and timed in fresh ones; nothing is dropped, every pair is taken."""
    names = rows(asked, results)
    job = replace(asked.workload, target_half_width=HALF_WIDTH, max_turns=MOST_TURNS, whole_share=0.0, batch_axis=(),
                  quality_s=0.0, budget_s=asked.budget_s, building_s=None)  # fmt: skip
    return measure(job, [REFERENCE, *names], say, command, asked.plant)


def path_of(asked: Asked, results: Path, machine: str) -> Path:
    of_any_seed = replace(asked, workload=replace(asked.workload, seed=0))
    return results / machine / "tune" / f"{of_any_seed.name}-exhaustive.json.gz"


@dataclass(frozen=True)
class Checked:
    """One answer against everything: how much slower the choice is than the best, by the exhaustive measurement."""

    seed: int
    choice: str
    off: Interval
    share: float
    runner_up: str
    tied: bool  # by the pairs in which both were timed
    overlaps: bool  # the interval of its speed-up and that of the choice's

    @property
    def passes(self) -> bool:
        return self.off.value <= WITHIN and self.share <= SHARE


def check(everything: Measurement, tunings: list[Tuning]) -> list[Checked]:
    """Each tuning's choice by what the exhaustive measurement says of it."""
    measured = [row for row in map(everything.row, everything.rows) if row.name == REFERENCE or row.speedup is not None]
    if not measured:
        raise UsageError("the exhaustive measurement holds no row")
    best = min(measured, key=_cost)
    found = []
    for tuning in tunings:
        choice = raced(tuning.choice)
        if choice not in everything.rows:
            raise UsageError(f"{tuning.choice!r} is not among the rows that were measured exhaustively")
        found.append(Checked(
            tuning.asked.workload.seed, tuning.choice, _slower(everything.row(choice), best),
            tuning.took_s / everything.took_s, tuning.runner_up.name if tuning.runner_up else "",
            tuning.tied, _overlaps(tuning),
        ))  # fmt: skip
    return found


def agree(found: list[Checked]) -> bool:
    """Whether all chose the same; who did not must name a runner-up as good: tied, or of an interval that overlaps."""
    common, _ = Counter(one.choice for one in found).most_common(1)[0]
    return all(one.choice == common or one.tied or one.overlaps for one in found)


def table(found: list[Checked], everything: Measurement) -> str:
    """The check in Markdown."""
    lines = [
        f"{len(everything.rows) - 1} combinations were measured in {everything.took_s:.0f} s.", "",
        "| seed | choice | slower than the best | of the time | runner-up | within 3 % in a fifth |",
        "| ---: | --- | ---: | ---: | --- | --- |",
    ]  # fmt: skip
    lines += [f"| {c.seed} | {c.choice} | {percent(c.off)} | {c.share:.1%} | {c.runner_up}{_near(c)} | "
              f"{'yes' if c.passes else 'NO'} |" for c in found]  # fmt: skip
    agreed = "agree, or name a runner-up whose interval overlaps that of their choice" if agree(found) else "DISAGREE"
    return "\n".join([*lines, "", f"The seeds {agreed}."])


def answers(asked: Asked, folder: Path, seeds: range = range(5)) -> list[Tuning]:
    """The stored answers to one question with several seeds."""
    named = [replace(asked, workload=replace(asked.workload, seed=seed)).name for seed in seeds]
    paths = [store.stored(folder / f"{name}.json") for name in named]
    missing = [seed for seed, path in zip(seeds, paths, strict=True) if not path.exists()]
    if missing:
        raise UsageError(f"no answer with --seed {', '.join(map(str, missing))} is stored in {folder}")
    return [load(path) for path in paths]


def stored(path: Path) -> Measurement:
    path = store.stored(path)
    if not path.exists():
        raise UsageError(f"{path} is not there: `python -m bench tune --exhaustive` measures it")
    return store.load(path)


def _overlaps(tuning: Tuning) -> bool:
    second = tuning.runner_up
    return second is not None and second.speedup is not None and tuning.speedup.overlaps(second.speedup)


def _near(one: Checked) -> str:
    return " (tied)" if one.tied else " (intervals overlap)" if one.overlaps else ""


def _slower(row: Row, best: Row) -> Interval:
    """By how much, by the exhaustive measurement; a row that failed: infinitely."""
    by = best.ratio_over(row)
    return Interval(*(math.inf,) * 3) if by is None else Interval(by.value - 1, by.low - 1, by.high - 1)


def _cost(row: Row) -> float:
    """Of a step, the reference's being 1; infinite for a row that failed."""
    if row.name == REFERENCE:
        return 1.0
    return 1 / row.speedup.value if row.status == "ok" and row.speedup is not None else float("inf")
