"""Rows, pairs and results made up from known figures."""

import math
from collections.abc import Sequence

from bench.gate.thresholds import Limits
from bench.gate.verdict import GateResult, Pair, RowResult
from bench.sequential_test import Rule

LIMITS = Limits(0.02, 0.05, 20.0, 0.01, 64, 0.004, "made up")
BASE_S = 0.01


def pair(slowdown: float = 0.0, wall: float | None = None, **more) -> Pair:
    """A pair in which this side takes so much longer, by the wall clock too unless it is given."""
    wall = slowdown if wall is None else wall
    fields = {"base_first": True, "couple": 0, "core": 0, **more}
    return Pair(BASE_S, BASE_S * (1 + slowdown), BASE_S, BASE_S * (1 + wall), **fields)


def noisy(slowdown: float, n: int, noise: float = 0.03, wall: float | None = None, **more) -> list[Pair]:
    """n pairs of this mean slowdown; the noise alternates, so that nothing is left to chance."""
    return [pair((1 + slowdown) * math.exp(noise * (-1) ** i) - 1, wall, **more) for i in range(n)]


def row(
    name: str = "compiled", first: Sequence[Pair] = (), fresh: Sequence[Pair] = (), limits: Limits = LIMITS, **more
) -> RowResult:
    """A row with the pairs of the first and of the fresh processes."""
    made = RowResult(name, limits, Rule(), **more)
    for one in first:
        made.add(one)
    for one in fresh:
        made.add(one, confirming=True)
    return made


def passing(name: str = "reference") -> RowResult:
    return row(name, noisy(0.0, 60))


def failing(name: str = "compiled") -> RowResult:
    return row(name, noisy(0.08, 60), noisy(0.08, 60))


def result(rows: list[RowResult], **more) -> GateResult:
    fields = {"base": "abc1234 Before", "this": "def5678 After", "environment": {"machine": "made-up"},
              "started": "2026-01-02T03:04:05Z", "command": "python -m bench gate --against abc1234", "seed": 1,
              "certificate": "no certificate covers this gate on made-up", **more}  # fmt: skip
    return GateResult(rows=rows, **fields)
