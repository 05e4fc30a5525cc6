"""The metric on trial, on the pictures that ship: every known-bad set is rejected, other seeds are accepted."""

from dataclasses import replace

import pytest
import torch

from bench.contenders import AT_EQUAL_STEPS
from bench.quality import trial
from bench.quality.classifier import WEIGHTS
from bench.quality.equivalence import EQUIVALENT, WORSE
from bench.quality.trial import GOOD, Tried

BAD = {
    "noise", "a constant image", "one sample repeated", "one sample a label repeated", "25 of 1,000 steps",
    "wrong labels", "a shifted noise schedule", "images inverted in intensity",
}  # fmt: skip


@pytest.fixture(scope="module")
def tried() -> dict[str, Tried]:
    return {one.name: one for one in trial.hold(trial.shipped)}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_known_bad_set_is_rejected(name: str, tried: dict[str, Tried]) -> None:
    assert (tried[name].bad, tried[name].verdict) == (True, WORSE), tried[name].why
    assert tried[name].right


def test_other_seeds_are_accepted(tried: dict[str, Tried]) -> None:
    assert set(tried) == {GOOD, *BAD}
    assert (tried[GOOD].bad, tried[GOOD].verdict) == (False, EQUIVALENT), tried[GOOD].why


def test_each_way_of_losing_is_seen_by_its_own_loss(tried: dict[str, Tried]) -> None:
    for name, by in (
        ("wrong labels", "accuracy"),
        ("one sample a label repeated", "diversity"),
        ("a shifted noise schedule", "kernel"),
        ("25 of 1,000 steps", "kernel"),
    ):
        assert tried[name].losses[by].lower > getattr(AT_EQUAL_STEPS, by)
    assert tried["wrong labels"].losses["kernel"].value == 0  # the pictures are the reference's own


def test_the_power_at_the_shipped_size_is_stated_and_grows(tried: dict[str, Tried]) -> None:
    n = len(trial.shipped("reference"))
    few, here, many = (trial.power(list(tried.values()), m) for m in (n // 4, n, 4 * n))
    assert few[0] < here[0] < many[0]
    assert few[1] < here[1] < many[1]
    assert many[0] > 0.95
    assert many[1] > 0.95


def test_a_trial_without_a_difference_fails() -> None:
    """Were the judge blind, the bad sets would pass; then the trial says so."""
    reference = trial.shipped("reference")
    held = {one.name: one for one in trial.hold(lambda name: reference)}
    assert held["25 of 1,000 steps"].verdict == EQUIVALENT
    assert not held["25 of 1,000 steps"].right
    assert torch.equal(reference.set.labels, torch.arange(len(reference)) % 10)


def test_the_table_that_ships_is_the_one_that_is_printed(monkeypatch, capsys, tried: dict[str, Tried]) -> None:
    monkeypatch.setattr(trial, "hold", lambda sets: list(tried.values()))
    assert trial.main() == 0

    def verdicts(text: str) -> list[list[str]]:
        rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ")]
        return [[name, must, is_] for _, name, must, is_, *_ in rows if name in tried]

    printed = verdicts(capsys.readouterr().out)
    assert len(printed) == 1 + len(BAD)
    assert printed == verdicts((WEIGHTS / "README.md").read_text())
    blind = [replace(one, verdict=EQUIVALENT) for one in tried.values()]
    monkeypatch.setattr(trial, "hold", lambda sets: blind)
    assert trial.main() == 1
