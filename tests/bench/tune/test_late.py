"""A search whose builds take longer than was foreseen: what was built is still raced, and what was not is told."""

from types import SimpleNamespace

import pytest

from bench.journal import Journal
from bench.tune import tuner
from bench.tune.asked import Asked
from bench.tune.record import Tuning
from bench.tune.space import BY_NAME
from bench.workload import Workload
from tests.bench.tune.conftest import MadeUp

BUDGET_S = 100.0
SLOW, FAST = "batched", "batched+frozen"


class Clocked(Journal):
    """By a clock that the test sets."""

    now = 0.0

    @property
    def spent_s(self) -> float:
        return self.now


@pytest.mark.parametrize(("building_s", "raced"), [(20.0, True), (70.0, True), (120.0, False)])
def test_what_was_built_is_raced_unless_the_whole_budget_is_gone(made_up, building_s, raced):
    journal, rows = Clocked(None, {}), made_up({SLOW: 0.9, FAST: 0.5})

    def take(made: MadeUp, seconds: float) -> None:
        for event in made.events:
            journal.add(event)
        made.events.clear()
        journal.now += seconds

    def enter(names: list[str]) -> None:
        built = {e["row"] for e in journal.of("first_call")}
        if fresh := {"reference", *names} - built:
            take(rows.enter(*sorted(fresh)), building_s)

    contest = SimpleNamespace(
        processes=2, enter=enter, race=lambda names, rounds: take(rows.race(names, 2 * rounds), 1.0)
    )
    tuning = Tuning(Asked(Workload(), budget_s=BUDGET_S), {}, "", "a test", space=20)

    def search(standing):
        fresh = [] if standing.ready_s else [BY_NAME[SLOW], BY_NAME[FAST]]
        return SimpleNamespace(next_rows=lambda: fresh)

    tuner._race_all(tuning, contest, search, [], journal, lambda text: None)
    standing = tuner._standing(tuning, journal)
    assert (FAST in standing.times) is raced
    if raced:
        assert standing.best == FAST
        assert len(standing.times[FAST]) >= tuner.LEAST_ROUNDS or SLOW in standing.beaten
    else:
        assert tuning.left_out[FAST] == "it was built, but no time was left to race it"
