"""What becomes of a group of processes of which some hang, die or are killed; they are made up, and so take no time."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bench import run, timing
from bench.contenders import CONTENDERS, REFERENCE
from bench.measurement import Measurement
from bench.timing import MOST_UNEXPLAINED, time_rows
from bench.workload import workload
from tests.bench.fake_crew import Event, FakeCrew, FakeWorker, Script, died, hung

ROWS = ["batched-cfg", "strided", "ddim"]
STEPS = {"ddim": 50, "strided": 250}


def timed(script: Script, processes: int = 2, max_turns: int = 2) -> tuple[Measurement, FakeCrew]:
    job = run.started(workload("quick", processes=processes, max_turns=max_turns, rounds=1), "a test")
    job.rows = [REFERENCE, *ROWS]
    for name in job.rows:
        run.introduce(job, CONTENDERS[name], None)
        job.events.append({"event": "first_call", "row": name, "steps": STEPS.get(name, 1000), "seconds": 0.1,
                           "compiled_now": False, "process": -1})  # fmt: skip
    crew = FakeCrew(script)
    time_rows(job, job.rows, {}, lambda e, number, label: run._take(job, e, number, label, print), print,
              run._patience(job, {}), crew)  # fmt: skip
    assert all(worker.ended for worker in crew.started)
    return job, crew


def well(worker: FakeWorker, order: Event) -> Iterator[Event]:
    """A worker that does as it is told."""
    yield from badly({})(worker, order)


def badly(happens: dict) -> Script:
    """happens: for (process or None, order, row), the events that end it; each happens once."""

    def script(worker: FakeWorker, order: Event) -> Iterator[Event]:
        for row in order["rows"]:
            for process in (worker.number, None):
                if (events := happens.pop((process, order["do"], row), None)) is not None:
                    yield from events
                    return
            yield from answer(order, row)

    return script


def answer(order: Event, row: str) -> Iterator[Event]:
    if order["do"] == "pairs":
        yield {"event": "pair", "row": row, "round": 0, "reference_s": 0.02, "row_s": 0.01, "reference_wall_s": 0.02,
               "row_wall_s": 0.01}  # fmt: skip
    if order["do"] == "whole" and order["until"] == 1:
        yield {"event": "segment", "row": row, "run": 0, "visit": 1, "steps": STEPS.get(row, 1000), "seconds": 1.0,
               "wall_s": 1.0}  # fmt: skip


def status(job: Measurement) -> dict[str, str]:
    return {name: job.row(name).status for name in job.rows}


OK = dict.fromkeys([REFERENCE, *ROWS], "ok")


def test_all_well() -> None:
    job, crew = timed(well)
    assert status(job) == OK
    assert [w.number for w in crew.started] == [0, 1]
    assert len(job.row("ddim").pairs) == 2 * 2
    assert job.row("ddim").whole_run_timed_s == 1.0


@pytest.mark.parametrize("order", ["build", "pairs", "whole"])
def test_a_row_that_hangs_is_red_and_all_others_are_measured(order: str) -> None:
    job, crew = timed(badly({(None, order, "strided"): [hung("strided")]}))
    assert status(job) == {**OK, "strided": "red"}
    assert job.row("strided").reason == "no answer in 120 s during its first call"
    for name in ("batched-cfg", "ddim"):
        assert len({pair["process"] for pair in job.row(name).pairs}) >= 2
        assert job.row(name).whole_run_timed_s == 1.0
    after = [w for w in crew.started if w.number > 1]
    assert len(after) == 1
    assert "strided" not in after[0].task["rows"]


def test_seconds_spent_on_a_process_that_hung_are_given_back() -> None:
    job, _ = timed(badly({(0, "pairs", "strided"): [hung("strided")]}))
    assert not job.interrupted
    assert {"batched-cfg", "ddim"} <= {name for name in ROWS if len(job.row(name).pairs) >= 4}


def test_no_two_processes_of_a_run_have_the_same_number(monkeypatch) -> None:
    """On a device they are built and timed one after another."""
    monkeypatch.setattr(timing, "torch", SimpleNamespace(device=lambda name: SimpleNamespace(type="cuda")))
    job, crew = timed(badly({(0, "pairs", "ddim"): [died("ddim", 11)]}), processes=3)
    numbers = [w.number for w in crew.started]
    assert sorted(numbers) == [0, 1, 2, 3]
    assert numbers.index(3) < numbers.index(1)  # in the place of the first, in its group
    assert {pair["process"] for pair in job.row("strided").pairs} == {0, 1, 2, 3}


def test_a_process_that_crashes_says_how_and_its_row_is_not_built_again() -> None:
    job, crew = timed(badly({(0, "pairs", "ddim"): [died("ddim", 11)]}))
    assert status(job) == {**OK, "ddim": "red"}
    assert job.row("ddim").reason == "its process ended: signal 11"
    assert all("ddim" not in w.task["rows"] for w in crew.started if w.number > 1)


def test_a_row_whose_process_was_killed_is_tried_alone_and_goes_on() -> None:
    job, crew = timed(badly({(0, "pairs", "ddim"): [died("ddim", 9)]}))
    assert status(job) == OK
    (death,) = job.of("died")
    assert death["again"]
    heir, alone = crew.started[2:]
    assert "ddim" not in heir.task["rows"]
    assert alone.task["rows"] == [REFERENCE, "ddim"]
    assert {pair["process"] for pair in job.row("ddim").pairs} >= {1, alone.number}
    assert alone.number not in {pair["process"] for pair in job.row("strided").pairs}


def test_a_row_that_is_killed_alone_too_is_red() -> None:
    killed = {(0, "build", "ddim"): [died("ddim", 9)], (3, "build", "ddim"): [died("ddim", 9)]}
    job, crew = timed(badly(killed))
    assert status(job) == {**OK, "ddim": "red"}
    assert job.row("ddim").reason == "its process ended: signal 9"
    assert len(crew.started) == 4  # two, one in place of the first, one for the row alone


def test_a_row_that_was_cleared_and_is_killed_once_more_is_red() -> None:
    job, _ = timed(badly({(0, "pairs", "ddim"): [died("ddim", 9)], (1, "pairs", "ddim"): [died("ddim", 9)]}))
    assert job.row("ddim").status == "red"
    assert {name: job.row(name).status for name in ("batched-cfg", "strided")} == {"batched-cfg": "ok", "strided": "ok"}


def test_a_process_killed_while_it_waited_blames_no_row() -> None:
    job, crew = timed(badly({(1, "pairs", "ddim"): [died(None, 9)]}))
    assert status(job) == OK
    assert [w.number for w in crew.started] == [0, 1, 2]


def test_processes_that_end_over_nothing_are_not_started_for_ever() -> None:
    def never(worker: FakeWorker, order: Event) -> Iterator[Event]:
        yield died(None, 0)

    job, crew = timed(never)
    assert 2 <= len(crew.started) <= 2 + MOST_UNEXPLAINED
    assert set(status(job).values()) == {"missing"}
    assert "a worker ended early" in job.row("ddim").absence


def test_whole_runs_that_two_processes_took_are_not_mixed() -> None:
    """Half a run of one and half a run of the other are no run."""

    def halves(worker: FakeWorker, order: Event) -> Iterator[Event]:
        if order["do"] != "whole":
            yield from well(worker, order)
            return
        if died_once and order["until"] < 1:
            return
        for row, steps in (("ddim", 50), (REFERENCE, 1000)):
            for i in range(2):
                yield {"event": "segment", "row": row, "run": 0, "index": i, "visit": 1, "steps": steps // 2,
                       "seconds": 1.0 + worker.number, "wall_s": 1.0}  # fmt: skip
                if not died_once:
                    died_once.append(worker.number)
                    yield died("strided", 11)

    died_once: list[int] = []
    job, _ = timed(halves)
    row = job.row("ddim")
    assert len({part["process"] for part in job.of("segment", "ddim")}) == 2
    assert {len({part["process"] for part in run}) for run in row.whole_runs} == {1}
    assert died_once[0] not in {part["process"] for run in row.whole_runs for part in run}
