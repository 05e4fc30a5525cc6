"""The search against a landscape that is known: it finds the best of all combinations, having raced a part of them."""

import itertools
import random

import pytest

from bench.tune.search import Search
from bench.tune.space import AT, BY_NAME, CONTENDERS, REFERENCE, choice_of, contender, name_of, values

ALLOWED = {
    "layout": ("", "channels-last"), "precision": ("", "autocast-bf16", "bf16"), "guide": ("", "batched"),
    "update": ("", "compiled-update", "native"), "runtime": ("", "compiled", "frozen"),
    "guided_between": ("", "limited"), "path": ("",),
}  # fmt: skip
EVERY = [c for c in itertools.product(*ALLOWED.values()) if contender(c) is not None and c != REFERENCE]
LOG = {"channels-last": 0.03, "autocast-bf16": 0.02, "bf16": 0.06, "batched": -0.25, "compiled-update": 0.02,
       "native": -0.01, "compiled": -0.3, "frozen": -0.4, "limited": -0.35}  # fmt: skip


def landscape(interplay: dict[tuple[str, str], float]) -> dict[str, float]:
    """The cost of every combination: a factor for each value, and for each pair of values that has an interplay."""
    costs = {}
    for choice in EVERY:
        log = sum(LOG[label] for label in choice if label)
        log += sum(worth for pair, worth in interplay.items() if set(pair) <= set(choice))
        costs[name_of(choice)] = 2.718281828**log
    return costs


def searched(made_up, costs, seed=0, forbidden=frozenset()) -> tuple[str, int]:
    """Whom the search ends at, and how many rows were raced."""
    race = made_up(costs, noise=0.03, seed=seed).enter("reference")
    while rows := [name_of(c) for c in Search(ALLOWED, race.standing(), forbidden).next_rows()]:
        race.enter(*rows)
        for _ in range(12):
            race.events += race.standing().losers()
            race.race([row for row in race.standing().alive if row != "reference"], 4)
    return race.standing().best, len(race.standing().times)


@pytest.mark.parametrize(
    "interplay",
    [
        {},
        {("frozen", "bf16"): -0.35, ("compiled", "bf16"): -0.2},  # slower alone, the best on top of a compiler
        {("frozen", "bf16"): -0.35, ("bf16", "channels-last"): -0.2},  # and then a layout that lost without it
        {("frozen", "batched"): 0.4},  # what is best alone does not go together
    ],
)
def test_it_finds_the_best_combination_and_races_a_part(made_up, interplay):
    costs = landscape(interplay)
    best = min(costs.values())
    for seed in range(3):
        found, raced = searched(made_up, costs, seed)
        assert costs[found] <= best * 1.03
        assert raced <= len(EVERY) / 3


def test_what_is_hopeless_alone_is_not_combined(made_up):
    costs = landscape({})
    costs |= {name: cost * 11 for name, cost in costs.items() if "bf16" in name}  # a CPU that emulates it
    race = made_up(costs).enter("reference", *(name_of(c) for c in Search(ALLOWED, made_up({}).standing()).next_rows()))
    race.race([row for row in race.standing().ready_s if row != "reference"], 20)
    combined = Search(ALLOWED, race.standing()).next_rows()
    assert combined
    assert not [choice for choice in combined if "bf16" in name_of(choice)]


def test_a_forbidden_combination_is_never_raced(made_up):
    forbidden = frozenset(c for c in EVERY if c[AT["precision"]] and c[AT["guided_between"]])
    costs = landscape({("frozen", "bf16"): -0.35})
    found, _ = searched(made_up, costs, forbidden=forbidden)
    assert choice_of(found) not in forbidden
    assert costs[found] <= 1.03 * min(cost for name, cost in costs.items() if choice_of(name) not in forbidden)


def test_every_combination_says_what_it_changes_and_shows_that_it_engaged():
    names = [row.name for row in CONTENDERS]
    assert len(names) == len(set(names)) > 1000
    for row in random.Random(0).sample(CONTENDERS, 200):
        choice = BY_NAME[row.name]
        assert row.lossless == all(value.lossless for value in values(choice))
        assert len(row.engaged) >= 5
        assert name_of(choice_of(row.name)) == row.name


def test_what_does_not_fit_together_is_in_no_combination():
    names = {row.name for row in CONTENDERS}
    assert "batched+frozen" in names
    assert "native+frozen" not in names  # the whole step is compiled
    assert "native+graph" not in names  # for a CPU, and for CUDA
    assert "compiled-update+compiled" not in names  # one thing twice
