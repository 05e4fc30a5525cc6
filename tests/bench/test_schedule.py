"""Who times what, and when it is enough: made-up processes on a clock that goes by what they are ordered."""

import random

import pytest

from bench.contenders import REFERENCE
from bench.schedule import FIRST_TURNS, Schedule, left_by_building
from bench.workload import workload

ROWS = ["batched-cfg", "strided", "ddim"]


class Fake:
    """A clock, and what is so: pairs take `pairs_s` seconds an order, a part of the whole runs what it is of 20 s."""

    def __init__(self, numbers=(0, 1, 2, 3), pairs_s: float = 5.0, undecided=(), dies=None):
        self.now, self.pairs_s, self.undecided = 100.0, pairs_s, set(undecided)
        self.dies = dict(dies or {})  # (process, kind of order): the number of its heir, or None
        self.living, self.heirs, self.rows = list(numbers), {}, {n: list(ROWS) for n in numbers}
        self.failed: set[str] = set()
        self.obeyed: list[tuple[int, str, dict]] = []
        self.taken = 0.0  # of the whole runs

    def clock(self) -> float:
        return self.now

    def alive(self) -> list[int]:
        return list(self.living)

    def sound(self, number=None) -> list[str]:
        return [n for n in (ROWS if number is None else self.rows[number]) if n not in self.failed]

    def needs_longer(self, row: str) -> bool:
        return row in self.undecided

    def heir(self, number: int):
        return self.heirs.get(number)

    def step_s(self) -> dict[str, float]:
        return {REFERENCE: 0.01}

    def drive(self, schedule: Schedule) -> list[tuple[int, str, dict]]:
        for number, order in schedule.orders(self):
            assert number in self.living
            kind = order["do"]
            self.obeyed.append((number, kind, order))
            if kind == "pairs":
                self.now += self.pairs_s
            elif kind == "whole" and order["until"] > self.taken:
                self.now += 20.0 * (order["until"] - self.taken)
                self.taken = order["until"]
            if (number, kind) in self.dies:
                self.living.remove(number)
                heir = self.dies.pop((number, kind))
                if heir is not None:
                    self.living.append(heir)
                    self.heirs[number], self.rows[heir] = heir, self.rows[number]
        return self.obeyed

    def of(self, kind: str) -> list[tuple[int, dict]]:
        return [(number, order) for number, did, order in self.obeyed if did == kind]


def made(fake: Fake, given_s: float = 160.0, is_first=True, is_last=True, **of_the_job) -> Schedule:
    job = workload("quick", **{"whole_share": 0.25, "building_s": None, **of_the_job})
    found = Schedule(job, given_s, 4, random.Random(3), is_first, is_last, fake.clock)
    found.built()
    return found


def test_every_row_gets_the_first_turns_and_then_only_the_undecided() -> None:
    fake = Fake(undecided=["ddim"])
    fake.drive(made(fake))
    asked = [sorted(order["rows"]) for _, order in fake.of("pairs")]
    assert asked[: 4 * FIRST_TURNS] == [sorted(ROWS)] * 4 * FIRST_TURNS
    assert asked[4 * FIRST_TURNS :]
    assert {tuple(rows) for rows in asked[4 * FIRST_TURNS :]} == {("ddim",)}
    for turn in range(len(asked) // 4):  # each process once a turn
        assert sorted(number for number, _ in fake.of("pairs")[4 * turn : 4 * turn + 4]) == [0, 1, 2, 3]


def test_decided_rows_end_it_long_before_the_budget() -> None:
    fake = Fake()
    fake.drive(made(fake))
    assert len(fake.of("pairs")) == 4 * FIRST_TURNS
    assert fake.now < 100 + 70


def test_the_budget_ends_it_when_nothing_is_ever_decided() -> None:
    fake = Fake(undecided=ROWS)
    fake.drive(made(fake, max_turns=100))
    assert fake.now - 100 == pytest.approx(160, abs=4 * 5 + 20)
    assert fake.taken == 1.0


def test_the_turns_end_it_where_they_are_fewer_than_the_time() -> None:
    fake = Fake(undecided=ROWS, pairs_s=0.1)
    fake.drive(made(fake, max_turns=3))
    assert len(fake.of("pairs")) == 12


def test_whole_runs_are_spread_over_the_turns_after_the_first_and_end_with_the_last() -> None:
    fake = Fake(undecided=ROWS)
    fake.drive(made(fake))
    kinds = [kind for _, kind, _ in fake.obeyed]
    assert kinds.index("whole") > 4  # a turn of pairs first: from their times the cost of a whole run is foreseen
    shares = [order["until"] for _, order in fake.of("whole")]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len({round(share, 2) for share in shares}) > 5
    assert len({number for number, _ in fake.of("whole")}) == 1
    assert fake.of("whole")[0][1]["seconds"] == 40.0


def test_only_the_first_group_takes_other_batches_and_only_the_last_whole_runs_and_pictures() -> None:
    fake = Fake()
    fake.drive(made(fake, is_first=False, is_last=False))
    assert {kind for _, kind, _ in fake.obeyed} == {"pairs"}
    fake = Fake()
    fake.drive(made(fake))
    kinds = [kind for _, kind, _ in fake.obeyed]
    assert kinds[0] == "axis"
    assert kinds[-1] == "judge"
    assert fake.of("axis")[0][1]["rows"] == [REFERENCE, "batched-cfg"]


def test_a_process_that_dies_in_its_turn_hands_the_turn_on() -> None:
    fake = Fake(numbers=[0], dies={(0, "pairs"): 1})
    fake.drive(made(fake, max_turns=FIRST_TURNS))
    assert [number for number, _ in fake.of("pairs")] == [0, 1, 1]  # both turns by the heir too


def test_whole_runs_go_on_in_another_process_where_theirs_was_killed() -> None:
    fake = Fake(undecided=ROWS)
    schedule = made(fake)
    for number, order in schedule.orders(fake):
        fake.obeyed.append((number, order["do"], order))
        fake.now += 5.0 if order["do"] == "pairs" else 2.0
        if order["do"] == "whole" and len(fake.of("whole")) == 3:
            fake.living.remove(number)
    numbers = [number for number, _ in fake.of("whole")]
    gone, other = numbers[2], numbers[3]
    assert other != gone
    assert set(numbers[:3]) == {gone}
    assert set(numbers[3:]) == {other}
    assert fake.of("whole")[3][1]["seconds"] >= 20.0  # it begins with them anew
    assert fake.of("whole")[-1][1]["until"] == 1.0


def test_no_process_left_ends_it() -> None:
    fake = Fake(numbers=[0], dies={(0, "pairs"): None})
    fake.drive(made(fake))
    assert [kind for _, kind, _ in fake.obeyed] == ["axis", "pairs"]


def test_seconds_lost_to_a_process_that_hung_are_no_rows() -> None:
    fake, lost = Fake(undecided=ROWS), Fake(undecided=ROWS)
    fake.drive(made(fake))
    schedule = made(lost)
    for number, order in schedule.orders(lost):
        lost.obeyed.append((number, order["do"], order))
        kind = order["do"]
        before = lost.now
        lost.now += 5.0 if kind == "pairs" else 0.0
        if kind == "whole" and order["until"] > lost.taken:
            lost.now += 20.0 * (order["until"] - lost.taken)
            lost.taken = order["until"]
        if kind in ("pairs", "whole") and len(lost.obeyed) in (3, 12):
            lost.now += 120.0
            schedule.lose(120.0)
        assert lost.now >= before
    assert [(n, kind) for n, kind, _ in lost.obeyed] == [(n, kind) for n, kind, _ in fake.obeyed]


def test_rows_that_have_failed_are_asked_for_no_more() -> None:
    fake = Fake()
    for number, order in made(fake).orders(fake):
        fake.obeyed.append((number, order["do"], order))
        fake.failed = {"strided"}
    assert all("strided" not in order["rows"] for _, order in fake.of("pairs") + fake.of("whole") + fake.of("judge"))


def test_a_process_that_has_built_one_row_takes_no_whole_runs() -> None:
    fake = Fake(numbers=[0, 1])
    fake.rows[1] = ["ddim"]
    fake.drive(made(fake))
    assert {number for number, _ in fake.of("whole")} == {0}
    assert {tuple(order["rows"]) for number, order in fake.of("pairs") if number == 1} == {("ddim",)}


def test_building_that_takes_long_shortens_the_timing_by_a_third_at_most() -> None:
    fake = Fake()
    schedule = Schedule(workload("quick"), 160.0, 4, random.Random(0), True, True, fake.clock)
    fake.now += 85.0
    assert schedule.built() == {"seconds": 140.0, "short_s": 20.0, "building_s": 85.0}
    assert schedule.left_s == 140.0


def test_a_preset_gives_way_where_building_takes_long_and_who_asks_for_seconds_gets_them() -> None:
    quick, asked = workload("quick"), workload("quick", budget_s=160.0)
    assert quick.budget_s == asked.budget_s == 160
    assert quick.building_s == 65
    assert left_by_building(160.0, 65.0, quick, 4) == 160
    assert left_by_building(160.0, 85.0, quick, 4) == 140
    assert left_by_building(160.0, 1000.0, quick, 4) == pytest.approx(160 * 2 / 3)
    assert left_by_building(160.0, 1000.0, asked, 4) == 160
    # a device's processes are built and timed one after another, each with its share
    assert left_by_building(40.0, 18.0, quick, 1) == pytest.approx(40 - (18 - 65 / 4))
