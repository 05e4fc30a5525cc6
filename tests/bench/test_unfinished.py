"""A run that was broken off: what is there is said and shown, and what is missing is measured, and nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as cli
from bench import journal, run, store, timing, unfinished
from bench.contenders import REFERENCE
from bench.measurement import Measurement
from bench.workload import Workload, workload
from sampler.errors import UsageError
from tests.bench.fake_crew import Event, FakeCrew, FakeWorker

ROWS = ["batched-cfg", "strided", "ddim"]
STEPS = {"ddim": 50, "strided": 250}


class BrokenOff(BaseException):
    """What SIGKILL is to a process, without one: nothing is tidied up."""


class Machine:
    """Made-up processes that answer well, until so many events were heard: then the run ends where it is."""

    def __init__(self, monkeypatch, until: float = float("inf")):
        self.left, self.orders = until, list[tuple[str, Event]]()
        nurseries, workers = FakeCrew(self.looked_at), FakeCrew(self.timed)
        inspected, time_rows = run.inspected, timing.time_rows
        monkeypatch.setattr(run, "inspected", lambda *given: inspected(*given, nurseries))
        monkeypatch.setattr(timing, "time_rows", lambda *given: time_rows(*given, workers))

    def heard(self, event: Event) -> Event:
        self.left -= 1
        if self.left < 0:
            raise BrokenOff
        return event

    def looked_at(self, worker: FakeWorker, order: Event) -> Iterator[Event]:
        self.orders.append(("inspect", order))
        if order["looks"] == ["roof"]:
            yield self.heard({"event": "roof", "copy_bytes_per_s": 1e9, "call_us": 1.0, "flop_an_image": 1.0,
                              "unfused_bytes_an_image": 1.0, "matrix_flop_per_s": {}})  # fmt: skip
            return
        row = order["row"]
        yield self.heard({"event": "first_call", "row": row, "steps": STEPS.get(row, 1000), "seconds": 0.1,
                          "compiled_now": False})  # fmt: skip
        yield self.heard({"event": "evidence", "row": row, "where": "inspection", "seen": {}, "findings": []})

    def timed(self, worker: FakeWorker, order: Event) -> Iterator[Event]:
        self.orders.append((order["do"], order))
        for row in order["rows"] if order["do"] in ("pairs", "axis", "whole") else ():
            if order["do"] == "pairs":
                yield self.heard({"event": "pair", "row": row, "round": 0, "reference_s": 0.02, "row_s": 0.01,
                                  "reference_wall_s": 0.02, "row_wall_s": 0.01})  # fmt: skip
            if order["do"] == "axis":
                yield self.heard({"event": "axis", "row": row, "batch": 4, "steps": 1000, "step_s": [0.01],
                                  "step_wall_s": [0.01]})  # fmt: skip
            if order["do"] == "whole" and order["until"] == 1:
                yield self.heard({"event": "segment", "row": row, "run": 0, "visit": 1, "steps": STEPS.get(row, 1000),
                                  "seconds": 1.0, "wall_s": 1.0})  # fmt: skip
        if order["do"] == "axis":
            yield self.heard({"event": "empty_cache", "text": "nothing", "advice": "none"})
        if order["do"] == "whole" and order["until"] == 1:
            yield self.heard({"event": "pictures", "row": REFERENCE, "shape": [1, 1, 1, 1], "uint8_base64": "AA=="})

    def count(self, do: str) -> int:
        return sum(kind == do for kind, _ in self.orders)


Outcome = tuple[Measurement | None, Machine, list[str]]


def job(**more) -> Workload:
    return workload("quick", **{"processes": 2, "max_turns": 2, "rounds": 1, **more})


@pytest.fixture(scope="module")
def here() -> dict:
    return run.environment.fingerprint("cpu")


@pytest.fixture(autouse=True)
def unchanged(monkeypatch, here) -> None:
    """The checkout and the machine, looked at once."""
    monkeypatch.setattr(unfinished, "changes", lambda: "")
    monkeypatch.setattr(run.environment, "fingerprint", lambda device: dict(here))


def measured(monkeypatch, results: Path, until: float = float("inf"), resume: bool = False,
             asked: Workload | None = None, rows: list[str] = ROWS) -> Outcome:  # fmt: skip
    with monkeypatch.context() as patch:
        machine, said = Machine(patch, until), list[str]()
        try:
            made = run.measure(asked or job(), rows, said.append, results=results, resume=resume)
        except BrokenOff:
            return None, machine, said
        cli.store.save(made, results)
        return made, machine, said


def the_journal(results: Path) -> Path:
    (path,) = results.glob(f"*/2*{unfinished.SUFFIX}")
    return path


@pytest.fixture(autouse=True)
def released(monkeypatch) -> None:
    """A journal that nobody closed is free, as it is when its process has ended."""
    made: list[journal.Journal] = []
    begin = unfinished.begin

    def remembered(*given):
        for one in made:
            one.close(finished=False)
        made.append(begin(*given))
        return made[-1]

    monkeypatch.setattr(unfinished, "begin", remembered)
    monkeypatch.setattr(journal, "is_written", lambda path: False)
    monkeypatch.setattr(unfinished, "_made", made, raising=False)


def let_go() -> None:
    for one in unfinished._made:  # type: ignore[attr-defined]
        one.close(finished=False)


def test_a_run_that_ended_leaves_one_result_and_no_journal(monkeypatch, tmp_path) -> None:
    made, _, _ = measured(monkeypatch, tmp_path)
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert path.suffix == ".json"
    assert store.load(path).events == made.events
    assert all("at" not in event for event in made.events)


def test_a_journal_holds_what_the_result_would_have(monkeypatch, tmp_path) -> None:
    made, _, _ = measured(monkeypatch, tmp_path / "whole")
    assert measured(monkeypatch, tmp_path / "broken", 25)[0] is None
    let_go()
    found = unfinished.load(the_journal(tmp_path / "broken"))
    assert found.interrupted
    assert len(found.events) > 25
    assert found.rows == made.rows
    assert [e["event"] for e in found.events] == [e["event"] for e in made.events][: len(found.events)]


@pytest.mark.parametrize("until", [0, 1, 3, 6, 9, 10, 12, 15, 20, 24, 27, 28])
def test_what_is_missing_is_measured_and_nothing_that_was_whole(monkeypatch, tmp_path, until: int) -> None:
    whole, _, _ = measured(monkeypatch, tmp_path / "undisturbed")
    results = tmp_path / "broken"
    nothing, _, _ = measured(monkeypatch, results, until)
    assert nothing is None
    let_go()
    before = unfinished.load(the_journal(results))
    made, second, said = measured(monkeypatch, results, resume=True)
    assert any(text.startswith("going on: ") for text in said)
    assert {name: made.row(name).status for name in made.rows} == {name: whole.row(name).status for name in whole.rows}
    assert {name: made.row(name).whole_run_timed_s for name in made.rows} == {
        name: whole.row(name).whole_run_timed_s for name in whole.rows
    }
    assert not made.interrupted
    # each row was inspected once to the end, and what was begun is there once
    assert sorted(e["row"] for e in made.of("first_call")) == sorted([REFERENCE, *ROWS])
    inspected = [order["row"] for kind, order in second.orders if kind == "inspect" and order["looks"] != ["roof"]]
    assert set(inspected) == set(made.rows) - {e["row"] for e in before.of("inspected")}
    assert len(made.of("roof")) == len(made.of("empty_cache")) == 1
    assert len(made.of("axis")) == 2
    assert second.count("axis") == (0 if before.of("empty_cache") else 1)
    if before.of("pictures"):
        assert second.count("whole") == 0
    for event in before.of("pair"):
        assert event in made.events
    (path,) = [p for p in results.rglob("*") if p.is_file()]
    assert path.suffix == ".json"


def test_a_run_that_was_killed_twice_goes_on_twice(monkeypatch, tmp_path) -> None:
    for until, resume in ((6, False), (6, True), (8, True)):
        assert measured(monkeypatch, tmp_path, until, resume)[0] is None
        let_go()
    made, _, _ = measured(monkeypatch, tmp_path, resume=True)
    assert {made.row(name).status for name in made.rows} == {"ok"}
    assert len(made.of("resumed")) == 3


def test_a_run_in_which_nothing_is_missing_starts_no_process(monkeypatch, tmp_path) -> None:
    """Killed after the last event, before the result was written."""
    with monkeypatch.context() as patch:
        Machine(patch)
        run.measure(job(max_turns=2), ROWS, results=tmp_path)
    let_go()
    made, machine, _ = measured(monkeypatch, tmp_path, resume=True)
    assert machine.orders == []
    assert {made.row(name).status for name in made.rows} == {"ok"}


@pytest.mark.parametrize(("change", "said"), [
    ({"asked": job(batch=8)}, "batch: 4 / 8"),
    ({"rows": ROWS[:2]}, "rows: reference, batched-cfg, strided, ddim / reference, batched-cfg, strided"),
])  # fmt: skip
def test_what_differs_is_said_in_one_sentence(monkeypatch, tmp_path, change, said) -> None:
    measured(monkeypatch, tmp_path, 6)
    let_go()
    with pytest.raises(UsageError) as refused:
        measured(monkeypatch, tmp_path, resume=True, **change)
    assert f"cannot be gone on with, for it differs in {said}; leave out --resume" in str(refused.value)
    assert the_journal(tmp_path).exists()  # and nothing is lost


@pytest.mark.parametrize("name", ["commit", "machine", "torch", "dirty"])
def test_another_commit_machine_or_version_is_not_gone_on_with(monkeypatch, tmp_path, name) -> None:
    measured(monkeypatch, tmp_path, 6)
    let_go()
    path = the_journal(tmp_path)
    head, *lines = path.read_text().splitlines()
    stored = json.loads(head)
    now = stored["head"]["run"]["environment"][name]
    stored["head"]["run"]["environment"][name] = "another"
    path.write_text("\n".join([json.dumps(stored), *lines]) + "\n")
    with pytest.raises(UsageError, match=re.escape(f"it differs in {name}: another / {now}; leave out")):
        measured(monkeypatch, tmp_path, resume=True)


def test_uncommitted_changes_that_changed_are_not_gone_on_with(monkeypatch, tmp_path) -> None:
    measured(monkeypatch, tmp_path, 6)
    let_go()
    monkeypatch.setattr(unfinished, "changes", lambda: "abc")
    with pytest.raises(UsageError, match="it differs in uncommitted changes:  / abc"):
        measured(monkeypatch, tmp_path, resume=True)


def test_another_patience_is_no_other_question(monkeypatch, tmp_path) -> None:
    measured(monkeypatch, tmp_path, 6)
    let_go()
    assert measured(monkeypatch, tmp_path, resume=True, asked=job(patience_s=30.0))[0] is not None


def test_nothing_to_go_on_with_is_said(monkeypatch, tmp_path) -> None:
    with pytest.raises(UsageError, match="nothing to go on with: no run was broken off in "):
        measured(monkeypatch, tmp_path, resume=True)


def test_the_same_command_again_says_what_there_is(monkeypatch, tmp_path) -> None:
    measured(monkeypatch, tmp_path, 20)
    let_go()
    _, _, said = measured(monkeypatch, tmp_path)
    (told,) = [text for text in said if "--resume" in text]
    assert "holds a run that was broken off after " in told
    assert "4 of 4 rows inspected, 3 timed in " in told


def test_a_page_is_made_of_it_that_says_so(monkeypatch, tmp_path, capsys) -> None:
    measured(monkeypatch, tmp_path, 24)
    let_go()
    assert unfinished.newest_of_each(tmp_path) == [the_journal(tmp_path)]
    assert cli.main(["report", str(the_journal(tmp_path))]) == 0
    said = capsys.readouterr()
    assert "holds a run that was broken off" in said.err
    (page,) = tmp_path.glob("*/report.html")
    assert "INTERRUPTED" in page.read_text()
    assert "INTERRUPTED" in (page.parent / "report.md").read_text()
    assert the_journal(tmp_path).exists()


def test_the_newest_of_a_machine_is_shown_be_it_a_result_or_broken_off(monkeypatch, tmp_path) -> None:
    with pytest.raises(UsageError, match="no results in"):
        unfinished.newest_of_each(tmp_path)
    measured(monkeypatch, tmp_path)
    (result,) = tmp_path.glob("*/2*.json")
    earlier = result.with_name("2020" + result.name[4:])
    result.rename(earlier)
    assert unfinished.newest_of_each(tmp_path) == [earlier]
    measured(monkeypatch, tmp_path, 6)
    left = the_journal(tmp_path)
    assert unfinished.newest_of_each(tmp_path) == [left]
    earlier.rename(left.with_suffix(".json"))  # of the same run
    assert unfinished.newest_of_each(tmp_path) == [left.with_suffix(".json")]


def test_an_inspection_that_was_broken_off_goes_on_too(monkeypatch, tmp_path) -> None:
    def looked(until: float = float("inf"), resume: bool = False, **task) -> tuple[Measurement | None, Machine]:
        with monkeypatch.context() as patch:
            machine = Machine(patch, until)
            try:
                made = run.look(job(), ROWS, ["first_call"], results=tmp_path, resume=resume, below="memory", **task)
            except BrokenOff:
                return None, machine
            store.save(made, tmp_path, "memory")
            return made, machine

    assert looked(5)[0] is None
    let_go()
    with pytest.raises(UsageError, match=r"it differs in within: nothing / 8\.0; leave out"):
        looked(resume=True, within=8.0)
    made, machine = looked(resume=True)
    assert sorted(e["row"] for e in made.of("first_call")) == sorted(made.rows)
    assert 0 < machine.count("inspect") < len(made.rows)
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert path.parent.name == "memory"
    assert path.suffix == ".json"


def test_a_stranger_is_no_journal(tmp_path) -> None:
    path = tmp_path / "2026-01-01T000000Z-abc.journal"
    for text in ("", "[]\n", '{"head": {}}\n', '{"head": {"kind": "tune"}}\n'):
        path.write_text(text)
        with pytest.raises(UsageError, match="remove it"):
            unfinished.load(path)
