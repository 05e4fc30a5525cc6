"""Slow creep: each row's speed-up over the stored results of a machine, and where its level changes.

Change points are found by `ruptures` (Truong et al. 2020): PELT (Killick et al. 2012) with a cost on the mean. The
penalty is 3·σ²·ln n, σ from the differences of neighbours, so that a steady series has none.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from bench.gate.compare import WORK
from bench.measurement import Measurement
from sampler.errors import UsageError

FEWEST = 4  # results from which a level can be told from noise
SMALLEST = 0.02  # a step of the level below this share is not worth a line


@dataclass(frozen=True)
class Series:
    """One row's log speed-ups over its reference, oldest first, and the places where the level changes."""

    row: str
    started: list[str]
    commits: list[str]
    log_speedups: list[float]

    @property
    def change_points(self) -> list[int]:
        """Indices of the first result of each new level."""
        values = np.array(self.log_speedups)
        if len(values) < FEWEST:
            return []
        try:
            import ruptures
        except ModuleNotFoundError:
            raise UsageError("change points need ruptures; install it: pip install 'ddpm-bench[history]'") from None
        # a robust σ from neighbours: a step in the level moves one difference, not all
        sigma = 1.4826 * median(abs(np.diff(values))) / math.sqrt(2)
        penalty = 3 * max(sigma, 1e-4) ** 2 * math.log(len(values))
        found = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(values).predict(pen=penalty)[:-1]
        return [start for start, step in zip(found, self._steps(found)) if abs(step) > SMALLEST]

    def _steps(self, starts: list[int]) -> list[float]:
        """How far the level rises at each start of a new one."""
        ends = [0, *starts, len(self.log_speedups)]
        levels = [fmean(self.log_speedups[a:b]) for a, b in pairwise(ends)]
        return [after - before for before, after in pairwise(levels)]

    @property
    def changes(self) -> list[tuple[int, float]]:
        """(index of the first result of a new level, rise of the log speed-up there)."""
        points = self.change_points
        return list(zip(points, self._steps(points)))


def series(results: list[Measurement]) -> list[Series]:
    """The series of every row, from results in the order measured; of other work, a series of its own."""
    by_work: dict[tuple, list[Measurement]] = {}
    for m in sorted(results, key=lambda m: m.started):
        by_work.setdefault(tuple(getattr(m.workload, name) for name in WORK), []).append(m)
    found = []
    for work, ordered in by_work.items():
        said = ", ".join(f"{name} {value}" for name, value in zip(WORK, work, strict=True))
        found += _series(ordered, f" ({said})" if len(by_work) > 1 else "")
    return found


def _series(ordered: list[Measurement], said: str) -> list[Series]:
    names = dict.fromkeys(name for m in ordered for name in m.rows if name != "reference")
    found = []
    for name in names:
        with_it = [m for m in ordered if name in m.rows and m.row(name).speedup is not None]
        found.append(Series(
            name + said, [m.started for m in with_it],
            [m.environment["commit"] + ("-dirty" if m.environment["dirty"] else "") for m in with_it],
            [math.log(m.row(name).speedup.value) for m in with_it],  # type: ignore[union-attr]
        ))  # fmt: skip
    return [s for s in found if s.log_speedups]


def text(found: list[Series]) -> str:
    """One line a row: first and last level, and each change with its commit."""
    lines = []
    for one in found:
        values = one.log_speedups
        change = math.expm1(values[0] - values[-1])
        lines.append(
            f"{one.row}: {len(values)} results, speed-up {math.exp(values[0]):.3g} in {one.commits[0]}, "
            f"{math.exp(values[-1]):.3g} in {one.commits[-1]} ({change:+.1%} time)"
        )
        for start, step in one.changes:
            word = "faster" if step > 0 else "slower"
            lines.append(f"    {word} by {abs(math.expm1(-step)):.1%} from {one.started[start]} on, "
                         f"commit {one.commits[start]}")  # fmt: skip
        if len(values) < FEWEST:
            lines.append(f"    too few to look for changes of level (at least {FEWEST})")
    return "\n".join(lines)
