"""The metric on trial, on the pictures that ship: every known-bad set is rejected, other seeds are accepted."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.contenders import AT_EQUAL_STEPS, AT_FEWER_STEPS
from bench.quality import blind, drawing, judged, plan, trial
from bench.quality.classifier import WEIGHTS
from bench.quality.drawing import Drawn
from bench.quality.equivalence import EQUIVALENT, PASSES, WORSE, losses, verdict
from bench.quality.real import load as load_real
from bench.quality.trial import FEW_LIMITED, FEWER, GOOD, MIXED, REFUSED, SPOILT, Power, Tried
from sampler.errors import UsageError

BAD = {
    "noise", "a constant image", "one sample repeated", "one sample a label repeated", "25 of 1,000 steps",
    "wrong labels", "a shifted noise schedule", "images inverted in intensity", "limited guidance, 50 DDIM steps",
    "no guidance, 50 DDIM steps", "every second picture unguided", *SPOILT,
}  # fmt: skip


@pytest.fixture(scope="module")
def tried() -> dict[str, Tried]:
    return {one.name: one for one in trial.hold(trial.shipped)}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_known_bad_set_is_rejected(name: str, tried: dict[str, Tried]) -> None:
    assert (tried[name].bad, tried[name].verdict) == (True, WORSE), tried[name].why
    assert tried[name].right


def test_other_seeds_are_accepted(tried: dict[str, Tried]) -> None:
    assert set(tried) == {GOOD, FEWER, FEW_LIMITED, *MIXED, *BAD}
    assert (tried[GOOD].bad, tried[GOOD].verdict) == (False, EQUIVALENT), tried[GOOD].why
    for good in (FEWER, FEW_LIMITED):
        assert tried[good].verdict in PASSES, tried[good].why
        assert not tried[good].bad


def test_every_set_is_judged_as_it_must_be(tried: dict[str, Tried]) -> None:
    assert [one.name for one in tried.values() if not one.right] == []
    mixed = tried["every fourth picture unguided"]
    assert mixed.must == REFUSED
    assert mixed.verdict not in PASSES
    assert not replace(mixed, verdict=EQUIVALENT).right


def test_debris_that_flatters_every_distance_is_seen_by_strangeness(tried: dict[str, Tried]) -> None:
    lost = tried["limited guidance, 50 DDIM steps"].losses
    assert lost["kernel"].value < 0
    assert lost["diversity"].value < 0
    assert lost["strangeness"].lower > AT_FEWER_STEPS.strangeness


def test_each_way_of_losing_is_seen_by_its_own_loss(tried: dict[str, Tried]) -> None:
    for name, by in (
        ("wrong labels", "accuracy"),
        ("one sample a label repeated", "diversity"),
        ("a shifted noise schedule", "kernel"),
        ("25 of 1,000 steps", "kernel"),
        ("limited guidance, 50 DDIM steps", "strangeness"),
    ):
        assert tried[name].losses[by].lower > getattr(AT_EQUAL_STEPS, by)
    assert tried["wrong labels"].losses["kernel"].value == 0  # the pictures are the reference's own


@pytest.fixture(scope="module")
def every_power() -> list[Power]:
    return trial.powers(trial.shipped)


def test_the_power_is_stated_at_the_size_that_decides_and_grows(every_power: list[Power]) -> None:
    by_size = {power.pictures: power for power in every_power}
    few, here, many = (by_size[n] for n in (min(by_size), len(trial.shipped("reference")), max(by_size)))
    assert few.rejected < here.rejected < many.rejected
    assert few.accepted < here.accepted < many.accepted
    assert here.rejected > 0.8
    assert here.accepted > 0.35  # on both sides, with the margins' own errors; else UNSURE or NO WORSE, never red
    assert min(many.rejected, many.accepted) > 0.9
    assert few.strange is not None
    assert few.strange > 0.8


def test_a_trial_without_a_difference_fails() -> None:
    """Were the judge blind, the bad sets would pass; then the trial says so."""
    reference = trial.shipped("reference").first(200)
    held = {one.name: one for one in trial.hold(lambda name: reference)}
    assert held["25 of 1,000 steps"].verdict == EQUIVALENT
    assert not held["25 of 1,000 steps"].right
    assert torch.equal(reference.set.labels, torch.arange(len(reference)) % 10)


def test_the_table_that_ships_is_the_one_that_is_printed(monkeypatch, capsys, tried, every_power) -> None:
    monkeypatch.setattr(trial, "hold", lambda sets: list(tried.values()))
    monkeypatch.setattr(trial, "powers", lambda sets: every_power)
    assert trial.main([]) == 0

    printed = capsys.readouterr().out.strip().splitlines()
    shipped = (WEIGHTS / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(printed) if line.startswith("| set |"))
    at = shipped.index(printed[start])
    assert len(shipped[at:]) >= len(printed[start:]) > 20
    number = re.compile(r"-?\d+(?:\.\d+)?")
    for mine, theirs in zip(printed[start:], shipped[at:], strict=False):
        assert number.sub("", mine) == number.sub("", theirs)
        found, written = ([float(n) for n in number.findall(line.replace(",", ""))] for line in (mine, theirs))
        assert found == pytest.approx(written, rel=2e-3, abs=1.5 if "%" in mine else 2e-3)
    blind = [replace(one, verdict=EQUIVALENT) for one in tried.values()]
    monkeypatch.setattr(trial, "hold", lambda sets: blind)
    assert trial.main([]) == 1


def test_the_budgets_follow_from_the_anchors(tried: dict[str, Tried]) -> None:
    damage = tried["25 of 1,000 steps"].losses
    assert pytest.approx(damage["kernel"].value, abs=5e-4) == AT_FEWER_STEPS.kernel == 2 * AT_EQUAL_STEPS.kernel
    assert pytest.approx(damage["diversity"].value, abs=5e-4) == AT_FEWER_STEPS.diversity
    assert AT_FEWER_STEPS.diversity == 2 * AT_EQUAL_STEPS.diversity
    for loss, of in (("kernel", damage["kernel"]), ("diversity", damage["diversity"])):
        assert AT_FEWER_STEPS.margin(loss)[1] == pytest.approx(of.error, rel=0.05)
        assert AT_EQUAL_STEPS.margin(loss)[1] == pytest.approx(of.error / 2, rel=0.05)


def test_the_budget_of_strangeness_is_a_share_of_what_leaving_guidance_out_costs() -> None:
    reference, unguided = (trial.shipped(name).set for name in ("reference", "unguided"))
    lost = losses(unguided, reference, load_real().train)["strangeness"]
    for budget, share in ((AT_FEWER_STEPS, 4), (AT_EQUAL_STEPS, 8)):
        assert pytest.approx(lost.value / share, abs=1e-3) == budget.strangeness
        assert pytest.approx(lost.error / share, abs=1e-3) == budget.strangeness_error


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_pictures_are_found_whichever_are_replaced(name: str, seed: int) -> None:
    share, grade = SPOILT[name]
    seen, reference = trial.spoilt(trial.shipped, share, grade, seed), trial.shipped("reference")
    assert (seen.set.strange != reference.set.strange).double().mean() == pytest.approx(share, abs=0.02)
    found = losses(seen.set, reference.set, load_real().train)
    assert verdict(found, AT_EQUAL_STEPS)[0] == WORSE
    assert found["kernel"].value < AT_EQUAL_STEPS.kernel / 2  # which no distance of the sets would have said


def test_a_break_in_ten_costs_about_what_rows_of_few_steps_may_lose() -> None:
    reference = trial.shipped("reference").set
    costs = [losses(trial.spoilt(trial.shipped, 0.1, blind.BROKEN, seed).set, reference, load_real().train)
             ["strangeness"].value for seed in range(6)]  # fmt: skip
    assert sum(costs) / 6 == pytest.approx(AT_FEWER_STEPS.strangeness, rel=0.25)


def test_what_ships_is_written_and_missing_pictures_are_named(tmp_path, monkeypatch, capsys) -> None:
    drawn = Drawn(torch.tensor([-1.0, 0.1, 1.0]).reshape(3, 1, 1, 1), torch.arange(3), 0.0, "d")
    trial.ship(lambda point: drawn, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as stored:
        assert set(stored) == set(trial.SHIPPED)
        assert stored["25 steps"].flatten().tolist() == [0, 140, 255]
    with pytest.raises(UsageError, match="ancestral-1000 are not drawn"):
        trial.ship(lambda point: None, tmp_path / "t.npz")
    monkeypatch.setattr(judged, "STORE", tmp_path)
    assert trial.main(["--ship"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_the_shipped_pictures_are_those_of_the_shipped_model() -> None:
    """Drawn again: up to rounding, which another batch size and 25 steps make into a grey level or two."""
    again, _ = drawing.draw_now(plan.points()[plan.DAMAGED], 10)
    off = (again - trial._images(trial.shipped("25 steps"))[:10]).abs() * 127.5
    assert off.max() <= 3
    assert off.mean() < 0.05
