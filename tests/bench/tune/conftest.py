"""Made-up events of a race, for tests that need no process."""

import math
import random

import pytest

from bench.tune.race import Standing


class MadeUp:
    """Rows with known costs and noise; `race` adds rounds of them to the events."""

    def __init__(self, cost: dict[str, float], noise: float = 0.03, seed: int = 0, unit_s: float = 1.0):
        self.unit_s = unit_s  # of a step of the reference
        self.cost, self.noise, self.random = {"reference": 1.0, **cost}, noise, random.Random(seed)
        self.events: list[dict] = []
        self.rounds = 0

    def enter(self, *rows: str, seconds: float = 1.0, compiled: bool = False) -> "MadeUp":
        self.events += [{"event": "first_call", "row": row, "seconds": seconds, "steps": 100, "compiled_now": compiled}
                        for row in rows]  # fmt: skip
        return self

    def race(self, rows: list[str], rounds: int) -> "MadeUp":
        for _ in range(rounds):
            for row in rows:
                theirs, mine = (self._slice_s(name) for name in ("reference", row))
                self.events.append({
                    "event": "pair", "row": row, "process": 0, "round": self.rounds, "row_s": mine, "row_wall_s": mine,
                    "reference_s": theirs, "reference_wall_s": theirs,
                })  # fmt: skip
            self.rounds += 1
        return self

    def _slice_s(self, row: str) -> float:
        return self.unit_s * self.cost[row] * math.exp(self.random.gauss(0, self.noise))

    def standing(self, batches: float | None = None, rivals: int = 20) -> Standing:
        return Standing(tuple(self.events), 100, batches, rivals)


@pytest.fixture
def made_up():
    return MadeUp
