"""Every verdict and every exit code, from pairs that are known."""

import json
import math
from dataclasses import replace

import pytest

from bench.gate.verdict import RowResult
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE, Rule
from sampler import strict_json
from tests.bench.gate.made_up import LIMITS, failing, noisy, pair, passing, result, row


def test_four_verdicts() -> None:
    assert passing().verdict == PASS
    assert failing().verdict == FAIL
    assert row(first=noisy(0.0, 2)).verdict == UNSURE
    assert row().verdict == MISSING
    assert row(first=noisy(0.0, 60), problem="raised").verdict == MISSING


def test_a_fail_stands_only_when_fresh_processes_reach_the_evidence_by_themselves() -> None:
    alone = row(first=noisy(0.08, 60))
    assert alone.slower.raised
    assert alone.verdict == UNSURE
    assert "not confirmed by fresh processes" in alone.note
    few = row(first=noisy(0.08, 60), fresh=noisy(0.08, 2))
    assert few.verdict == UNSURE
    assert not few.slower.settled
    denied = row(first=noisy(0.08, 60), fresh=noisy(0.0, 60))
    assert denied.verdict == UNSURE
    assert denied.slower.refuted
    assert failing().slower.confirmed
    first, fresh = failing().evidences
    assert first > 2  # 10^2: 1/α
    assert fresh > math.log10(20)


def test_fresh_pairs_do_not_raise_a_charge_and_first_ones_do_not_confirm_it() -> None:
    only_fresh = row(first=noisy(0.0, 60), fresh=noisy(0.08, 60))
    assert only_fresh.verdict == PASS
    assert not only_fresh.slower.stands


def test_a_slowdown_that_only_the_wall_sees_fails_and_says_so() -> None:
    waits = row(first=noisy(0.0, 60, wall=0.3), fresh=noisy(0.0, 60, wall=0.3))
    assert waits.verdict == FAIL
    assert "it waits rather than works" in waits.note


def test_a_clock_that_reads_nothing_is_refused_and_leaves_no_pair() -> None:
    broken = row()
    with pytest.raises(ValueError, match="no finite numbers"):
        broken.add(pair(-1.0))
    assert broken.pairs == []
    assert broken.verdict == MISSING


@pytest.mark.parametrize(("rows", "more", "code"), [
    ([passing()], {}, 0),
    ([passing(), failing()], {}, 1),
    ([passing(), row("gone", problem="it has disappeared")], {}, 2),
    ([failing(), row("gone", problem="it has disappeared")], {}, 1),
    ([passing(), row("slow", noisy(0.0, 2))], {}, 0),
    ([passing(), row("slow", noisy(0.0, 2))], {"strict": True}, 2),
    ([passing()], {"stopped": "a worker was killed"}, 2),
    ([passing()], {"control": failing("reference (base against itself)")}, 2),
    ([failing()], {"control": row("control", noisy(-0.08, 60))}, 2),
    ([passing()], {"control": passing()}, 0),
    ([], {}, 2),
    ([row("new", skipped="new: the base has no such row")], {}, 2),
    ([passing(), row("new", skipped="new: the base has no such row")], {}, 0),
])  # fmt: skip
def test_exit_codes(rows: list[RowResult], more: dict, code: int) -> None:
    assert result(rows, **more).exit_code == code


def test_a_contaminated_run_blames_the_machine_and_not_the_code() -> None:
    found = result([failing()], control=row("reference", noisy(0.08, 60)))
    assert found.headline.startswith("CONTAMINATED: the base against itself reads +8")
    assert found.exit_code == 2


def test_an_improvement_counts_only_under_the_ratchet_only_confirmed_and_only_unexplained() -> None:
    faster = row(first=noisy(-0.08, 60), fresh=noisy(-0.08, 60))
    assert faster.verdict == PASS
    assert result([faster]).exit_code == 0
    assert result([faster], ratchet=True).exit_code == 1
    assert result([row(first=noisy(-0.08, 60))], ratchet=True).exit_code == 0
    explained = replace(LIMITS, explained="the cache is filled once")
    assert result([row(first=faster.pairs, fresh=faster.confirming, limits=explained)], ratchet=True).exit_code == 0


def test_json_holds_every_pair_and_is_json() -> None:
    made = result([failing(), row("none", problem="gone")], control=passing())
    found = json.loads(strict_json.dumps(made.json()))
    assert len(found["rows"][0]["pairs"]) == 60
    assert len(found["rows"][0]["confirming"]) == 60
    assert found["rows"][0]["verdict"] == "FAIL"
    assert found["rows"][1]["slowdown"] is None
    assert found["exit_code"] == 1
    assert found["control"]["verdict"] == "PASS"


def test_more_rows_raise_the_bar() -> None:
    alone, among = RowResult("a", LIMITS, Rule()), RowResult("a", LIMITS, Rule(rows=10**9))
    for one in noisy(0.06, 30):
        alone.add(one)
        among.add(one)
    assert alone.slower.raised
    assert not among.slower.raised
