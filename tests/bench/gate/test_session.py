"""A whole gate on workers that take made-up time: verdicts, and mutations of the design that must not go unseen."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from bench.gate import duel, outputs, session
from bench.gate.duel import Couples, build_all, calls_for, judge
from bench.gate.worker import WorkerFault, WorkerLost
from bench.sequential_test import FAIL, MISSING, PASS, UNSURE
from sampler.errors import UsageError
from tests.bench.gate.fakes import BASE, CALL_S, THIS, FakeMachine, FakeWorker, gated
from tests.bench.gate.made_up import row

ROWS = ("reference", "compiled", "ddim")


def side_by_side(base: dict, this: dict, machine: FakeMachine | None = None, **more):
    """make(side, fresh) for `gated`: rows and costs of both sides; more: what this side's slices differ in."""
    machine = machine or FakeMachine()

    def make(side, fresh):
        mine = this if side == THIS else base
        return FakeWorker(side, machine, mine, **(more if side == THIS else {}))

    return make


def same(**changed) -> tuple[dict, dict]:
    base = dict.fromkeys(ROWS, CALL_S)
    return base, {**base, **changed}


def verdicts(found) -> dict[str, str]:
    return {r.name: r.verdict for r in found.result.rows}


def test_only_the_row_that_got_slower_fails(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(compiled=1.08 * CALL_S)))
    assert verdicts(found) == {"reference": PASS, "compiled": FAIL, "ddim": PASS}
    assert found.result.exit_code == 1
    (slow,) = [r for r in found.result.rows if r.name == "compiled"]
    assert slow.confirming
    assert slow.slowdown[0] == pytest.approx(0.08, abs=0.02)
    assert all(worker.stopped for worker in found.workers)
    assert found.result.control.verdict in (PASS, UNSURE)


def test_nothing_changed_passes_without_fresh_processes(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same()))
    assert set(verdicts(found).values()) == {PASS}
    assert found.result.exit_code == 0
    assert len(found.workers) == 2 * session.WORKERS


class Remembering(FakeWorker):
    """On a machine whose caches favour whoever ran a moment ago."""

    def __init__(self, side, ran: list, rows: dict):
        super().__init__(side, FakeMachine(), rows)
        self.ran = ran

    def ask(self, timeout_s: float = 0.0, **request) -> dict:
        answer = super().ask(timeout_s, **request)
        gain = 0.9 if any(worker is self for worker in self.ran[-3:]) else 1.0
        self.ran.append(self)
        return {**answer, **{clock: gain * answer[clock] for clock in ("cpu_s", "wall_s")}}


def test_the_control_arm_warms_the_caches_of_neither_side(monkeypatch) -> None:
    for name in ROWS:
        ran: list[FakeWorker] = []
        found = gated(monkeypatch, lambda side, _, ran=ran: Remembering(side, ran, same()[0]), rows=[name])
        assert verdicts(found) == {name: PASS}
        by_side = [sum(worker.side == side for worker in ran) for side in (BASE, THIS)]
        assert by_side[0] == by_side[1]


def test_a_slow_launch_that_fresh_processes_do_not_show_is_unsure(monkeypatch) -> None:
    """The lottery of one launch: the first processes of this side are slow, fresh ones are not."""
    machine = FakeMachine()

    def make(side, fresh):
        slow = side == THIS and not fresh
        return FakeWorker(side, machine, {"reference": CALL_S, "ddim": CALL_S * (1.1 if slow else 1)})

    found = gated(monkeypatch, make)
    assert verdicts(found) == {"reference": PASS, "ddim": UNSURE}
    assert found.result.exit_code == 0
    (unsure,) = [r for r in found.result.rows if r.name == "ddim"]
    assert "not confirmed by fresh processes" in unsure.note
    assert unsure.evidences[0] > 2


def test_rows_that_came_went_or_stopped_running(monkeypatch) -> None:
    machine = FakeMachine()

    def make(side, fresh):
        if side == BASE:
            return FakeWorker(side, machine, {"reference": CALL_S, "gone": CALL_S, "broken": CALL_S},
                              absent={"cuda-graph": "needs CUDA"})  # fmt: skip
        return FakeWorker(side, machine, {"reference": CALL_S, "new": CALL_S},
                          absent={"broken": "no compiler", "cuda-graph": "needs CUDA"})  # fmt: skip

    found = gated(monkeypatch, make)
    by_name = {r.name: r for r in found.result.rows}
    assert by_name["gone"].verdict == MISSING
    assert "disappeared" in by_name["gone"].note
    assert by_name["broken"].verdict == MISSING
    assert "ran before and now does not: no compiler" in by_name["broken"].note
    assert by_name["new"].skipped == "new: the base has no such row"
    assert by_name["cuda-graph"].skipped == "cannot run here: needs CUDA"
    assert found.result.exit_code == 2


def test_a_row_that_raises_while_it_is_timed_is_missing_and_the_others_are_judged(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(ddim=WorkerFault("RuntimeError: planted"))))
    assert verdicts(found) == {"reference": PASS, "compiled": PASS, "ddim": MISSING}
    assert "raised while it was timed: RuntimeError: planted" in found.result.rows[2].note
    assert found.result.exit_code == 2


def test_a_clock_that_reads_nothing_is_missing_not_a_pass(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(ddim=0.0)))
    assert verdicts(found)["ddim"] == MISSING
    assert found.result.exit_code == 2


def test_a_worker_that_is_killed_stops_the_run_and_no_row_passes_by_it(monkeypatch) -> None:
    lost = WorkerLost("a worker of this tree (process 7) was killed by signal 9 while slice ddim")
    found = gated(monkeypatch, side_by_side(*same(ddim=lost)))
    assert found.result.exit_code == 2
    assert "killed by signal 9" in found.result.headline
    assert verdicts(found)["ddim"] == MISSING
    assert all(worker.stopped for worker in found.workers)


def test_too_little_time_is_unsure(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same()), budget_s=1e-9)
    assert set(verdicts(found).values()) == {MISSING}  # not one pair was taken
    found = gated(monkeypatch, side_by_side(*same(), FakeMachine(noise=3.0)), budget_s=0.3)
    assert set(verdicts(found).values()) == {UNSURE}
    assert found.result.exit_code == 0


def test_a_machine_that_tells_the_base_from_itself_contaminates_the_run(monkeypatch) -> None:
    machine, made = FakeMachine(), []

    def make(side, fresh):
        made.append(side)
        lucky = side == BASE and made.count(BASE) <= 2  # half of the base's processes are fast
        return FakeWorker(side, machine, dict.fromkeys(ROWS, CALL_S * (0.85 if lucky else 1)))

    found = gated(monkeypatch, make)
    assert found.result.headline.startswith("CONTAMINATED")
    assert found.result.exit_code == 2


def test_a_base_that_cannot_be_timed_against_itself_contaminates_the_run_too(monkeypatch) -> None:
    base, this = same()
    found = gated(monkeypatch, side_by_side({**base, "reference": WorkerFault("RuntimeError: planted")}, this))
    assert "CONTAMINATED: the base could not be timed against itself: RuntimeError: planted" in found.result.headline
    assert found.result.exit_code == 2
    assert verdicts(found) == {"reference": MISSING, "compiled": PASS, "ddim": PASS}


def test_the_ratchet_fails_what_became_faster_once_fresh_processes_agree(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(ddim=0.9 * CALL_S)), ratchet=True)
    assert [r.name for r in found.result.improved] == ["ddim"]
    assert found.result.exit_code == 1
    assert gated(monkeypatch, side_by_side(*same(ddim=0.9 * CALL_S))).result.exit_code == 0


def test_only_the_rows_asked_for_and_an_unknown_one_is_refused(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same()), rows=["ddim"])
    assert verdicts(found) == {"ddim": PASS}
    assert found.result.control.name == "ddim (base against itself)"
    with pytest.raises(UsageError, match="did you mean 'ddim'"):
        gated(monkeypatch, side_by_side(*same()), rows=["dim"])


def test_the_seconds_go_to_the_rows_that_are_undecided(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(ddim=1.04 * CALL_S, compiled=1.5 * CALL_S)))
    pairs = {r.name: len(r.pairs) for r in found.result.rows}
    assert max(pairs["compiled"], pairs["reference"]) < pairs["ddim"]


def test_where_the_time_went_is_told_with_building_apart(monkeypatch) -> None:
    found = gated(monkeypatch, side_by_side(*same(compiled=1.08 * CALL_S)))
    spent = found.result.phases_s
    assert list(spent) == ["starting", "building", "timing", "inspecting"]
    text = outputs.terminal(replace(found.result, phases_s={"starting": 7.0, "building": 130.0, "timing": 20.4}))
    assert "took 27 s (starting 7 s, timing 20 s), and building (compiling) 130 s; seed 3" in text


def test_a_run_that_cannot_pin_its_pairs_to_a_core_says_so(monkeypatch) -> None:
    assert gated(monkeypatch, side_by_side(*same())).result.remarks == []
    found = gated(monkeypatch, side_by_side(*same()), task={"threads": 2, "device": "cpu"})
    assert found.result.remarks == [session.NOT_PINNED]
    assert session.NOT_PINNED in outputs.terminal(found.result)
    assert session.NOT_PINNED in outputs.markdown(found.result)
    assert gated(monkeypatch, side_by_side(*same()), task={"threads": 1, "device": "cuda"}).result.remarks == []


def test_a_row_that_one_side_cannot_inspect_is_missing_and_says_which(monkeypatch) -> None:
    class Opaque(FakeWorker):
        def answer(self, timeout_s: float = 0.0) -> dict:
            if self.side == THIS and (self.request["do"], self.request["row"]) == ("inspect", "ddim"):
                raise WorkerFault("NotImplementedError: planted")
            return super().answer(timeout_s)

    machine = FakeMachine()
    found = gated(monkeypatch, lambda side, fresh: Opaque(side, machine, dict.fromkeys(ROWS, CALL_S)))
    assert verdicts(found) == {"reference": PASS, "compiled": PASS, "ddim": MISSING}
    assert found.result.rows[2].note == "raised while it was inspected, in this tree: NotImplementedError: planted"


def test_both_of_a_pair_sit_on_one_core_that_is_drawn() -> None:
    machine = FakeMachine()
    base, this = ([FakeWorker(side, machine, {"a": CALL_S}) for _ in range(3)] for side in (BASE, THIS))
    couples = Couples(base, this, [0, 1, 2, 3], random.Random(1))
    pairs = [couples.pair("a", 1) for _ in range(60)]
    assert {p.core for p in pairs} == {0, 1, 2, 3}
    for one, other in zip(base, this, strict=True):
        assert one.cores == other.cores
    assert [p.couple for p in pairs] == [0, 1, 2] * 20


def test_a_fault_in_building_names_the_side() -> None:
    class Fails(FakeWorker):
        def answer(self, timeout_s: float = 0.0) -> dict:
            raise WorkerFault("ImportError: no module")

    faults = build_all([Fails(THIS, FakeMachine(), {"a": CALL_S})], ["a"], [], lambda text: None)
    assert faults == {"a": "this tree cannot run it: ImportError: no module"}


def test_slices_are_long_enough_for_the_clock() -> None:
    assert calls_for(0.012) == 1
    assert calls_for(0.1) == 1
    assert calls_for(0.001) * 0.001 >= 0.012
    assert calls_for(0.0) > 0


# Mutations: what happens when a part of the design is left out, seen by the same gate.


def fail_share(couples: Couples, launches: int = 20) -> float:
    """In how many A/A decisions the row is charged."""
    charged = 0
    for _ in range(launches):
        one = row("a")
        pairs = iter(range(150))
        judge(couples, [one], lambda pairs=pairs: next(pairs, None) is None, duel.is_decided)
        charged += one.slower.raised
    return charged / launches


class FixedOrder(random.Random):
    """A coin that always says the same."""

    def random(self) -> float:
        return 0.1


@pytest.mark.parametrize(("coin", "charged"), [(random.Random(1), 0.0), (FixedOrder(1), 1.0)])
def test_mutation_an_order_that_is_not_drawn_is_caught_where_the_second_place_costs(coin, charged: float) -> None:
    machine = FakeMachine(second_costs=0.06)
    base, this = ([FakeWorker(side, machine, {"a": CALL_S})] for side in (BASE, THIS))
    assert fail_share(Couples(base, this, [], coin)) == charged


def test_the_order_is_a_fair_coin() -> None:
    machine = FakeMachine()
    base, this = ([FakeWorker(side, machine, {"a": CALL_S})] for side in (BASE, THIS))
    couples = Couples(base, this, [], random.Random(5))
    first = [couples.pair("a", 1).base_first for _ in range(400)]
    assert 160 < sum(first) < 240
    assert machine.order[::2] == ["the base" if base_first else "this tree" for base_first in first]
    runs = sum(a != b for a, b in pairwise(first))
    assert 150 < runs < 250  # neither alternating nor sticking


def test_mutation_swapped_labels_are_caught() -> None:
    machine = FakeMachine()
    base, slow = FakeWorker(BASE, machine, {"a": CALL_S}), FakeWorker(THIS, machine, {"a": 1.1 * CALL_S})
    assert fail_share(Couples([base], [slow], [], random.Random(2)), 5) == 1.0
    assert fail_share(Couples([slow], [base], [], random.Random(2)), 5) == 0.0
