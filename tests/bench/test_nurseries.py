"""What becomes of rows whose inspection hangs, dies or is killed; the nurseries are made up."""

from collections.abc import Iterator

import pytest

from bench import run
from bench.contenders import REFERENCE
from bench.nurseries import inspected
from bench.workload import workload
from tests.bench.fake_crew import Event, FakeCrew, FakeWorker, died, hung

ROWS = [REFERENCE, "batched-cfg", "strided", "ddim"]


def looked_at(happens: dict[str, list[list[Event]]], monkeypatch, lanes: int = 2) -> tuple[list[Event], FakeCrew]:
    """happens: for each row, what comes of its first inspection, of its second, …; else all is well."""
    monkeypatch.setattr("bench.nurseries.cpu.usable", lambda: lanes)

    def script(worker: FakeWorker, order: Event) -> Iterator[Event]:
        if order["looks"] == ["roof"]:
            yield {"event": "roof"}
        elif happens.get(order["row"]):
            yield from happens[order["row"]].pop(0)
        else:
            yield {"event": "first_call", "row": order["row"], "seconds": 0.1, "steps": 1}

    crew = FakeCrew(script)
    heard = list(inspected({"plant": None}, ROWS, ["first_call"], workload("quick"), False, ["roof"], None, crew))
    assert all(worker.ended for worker in crew.started)
    return heard, crew


def called(heard: list[Event]) -> list[str]:
    return sorted(event["row"] for event in heard if event["event"] == "first_call")


KILLED = {"event": "error", "row": "ddim", "message": "its process was killed (signal 9)", "killed": True}


def test_all_well(monkeypatch) -> None:
    heard, crew = looked_at({}, monkeypatch)
    assert called(heard) == sorted(ROWS)
    assert sorted(event["row"] for event in heard if event["event"] == "inspected") == sorted(ROWS)
    assert heard[-1]["event"] == "roof"
    assert len(crew.started) == 2


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_row_that_hangs_is_an_error_and_a_fresh_nursery_takes_the_others(monkeypatch, lanes: int) -> None:
    heard, crew = looked_at({"batched-cfg": [[hung("batched-cfg")]]}, monkeypatch, lanes)
    (error,) = [event for event in heard if event["event"] == "error"]
    assert (error["row"], error["message"]) == ("batched-cfg", "no answer in 120 s during its first call")
    assert called(heard) == sorted(set(ROWS) - {"batched-cfg"})
    assert "batched-cfg" not in {event["row"] for event in heard if event["event"] == "inspected"}
    assert heard[-1]["event"] == "roof"
    assert len(crew.started) == lanes + 1


def test_a_nursery_that_crashes_takes_its_row_alone_with_it(monkeypatch) -> None:
    heard, _ = looked_at({"strided": [[died(None, 11)]]}, monkeypatch)
    assert [(e["row"], e["message"]) for e in heard if e["event"] == "error"] == [
        ("strided", "its process ended: signal 11")
    ]
    assert called(heard) == sorted(set(ROWS) - {"strided"})


@pytest.mark.parametrize("how", [[KILLED], [died(None, 9)]])
def test_a_row_that_was_killed_is_tried_again_when_nothing_else_runs(monkeypatch, how: list[Event]) -> None:
    heard, crew = looked_at({"ddim": [how]}, monkeypatch)
    assert called(heard) == sorted(ROWS)
    assert [event["row"] for event in heard if event["event"] == "again"] == ["ddim"]
    assert [event["row"] for event in heard if event["event"] == "inspected"].count("ddim") == 1
    assert not [event for event in heard if event["event"] == "error"]
    assert [order["row"] for w in crew.started for order in w.orders].count("ddim") == 2
    assert [event["row"] for event in heard if event["event"] in ("first_call", "again")][-1] == "ddim"


def test_a_row_that_is_killed_twice_is_an_error(monkeypatch) -> None:
    heard, _ = looked_at({"ddim": [[KILLED], [KILLED]]}, monkeypatch)
    (error,) = [event for event in heard if event["event"] == "error"]
    assert error == {"event": "error", "row": "ddim", "message": "its process was killed (signal 9)"}


def test_what_was_heard_of_a_row_that_is_tried_again_does_not_count() -> None:
    job = run.started(workload("quick"), "a test")
    job.rows = ["ddim"]
    call = {"event": "first_call", "row": "ddim", "steps": 50, "compiled_now": False}
    for event in ({**call, "seconds": 9.0}, {**KILLED, "event": "again"}, {**call, "seconds": 1.0}):
        run._take(job, event, run.INSPECTION, "inspecting", print)
    assert [event["seconds"] for event in job.of("first_call", "ddim")] == [1.0]
    assert not job.row("ddim").reason
