"""The gate's end of a worker: a process that speaks the protocol, and then does what is asked of it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.gate import worker
from bench.gate.worker import ANSWER_S, Side, Worker, WorkerFault, WorkerLost, due_s

SCRIPT = """
import json, os, signal, sys, time
print(json.dumps({"protocol": PROTOCOL, "rows": {"ddim": ""}, "python": "3", "torch": "2"}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "slice":
        time.sleep(3600)
    if asked["do"] == "inspect":
        print("these were my last words", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"error": "RuntimeError: planted"} if asked["row"] == "bad" else {"call_s": 1.0}), flush=True)
"""


def started(monkeypatch, folder: Path, protocol: int = worker.PROTOCOL) -> Worker:
    (folder / "script.py").write_text(SCRIPT.replace("PROTOCOL", str(protocol), 1))
    monkeypatch.setattr(worker, "SCRIPT", folder / "script.py")
    return Side("this tree", folder, sys.executable).start({"threads": 1})


@pytest.fixture
def made(monkeypatch, tmp_path) -> Iterator[Worker]:
    one = started(monkeypatch, tmp_path)
    yield one
    one.end()


def test_it_is_greeted_and_answers(made: Worker) -> None:
    made.hello()
    assert made.rows == {"ddim": ""}
    assert made.ask(do="build", row="ddim") == {"call_s": 1.0}
    with pytest.raises(WorkerFault, match="RuntimeError: planted"):
        made.ask(do="build", row="bad")


def test_one_that_speaks_another_protocol_is_refused(monkeypatch, tmp_path) -> None:
    other = started(monkeypatch, tmp_path, 99)
    with pytest.raises(WorkerFault, match="speaks protocol 99, the harness 1"):
        other.hello()
    other.end()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_one_that_does_not_answer_is_ended_and_told_of(made: Worker, is_stopped: bool) -> None:
    made.hello()
    if is_stopped:
        os.kill(made.process.pid, signal.SIGSTOP)
    why = r" \(a signal had stopped it\)" if is_stopped else ""
    with pytest.raises(WorkerLost, match=f"a worker of this tree said nothing for 1 s while slice ddim{why}$"):
        made.ask(1.0, do="slice", row="ddim")
    assert made.process.returncode == -signal.SIGKILL


def test_one_that_was_killed_is_told_of_with_its_last_words(made: Worker) -> None:
    made.hello()
    said = r"\(process \d+\) was killed by signal 9 while inspect ddim; its last words: these were my last words"
    with pytest.raises(WorkerLost, match=said):
        made.ask(do="inspect", row="ddim")


def test_a_slow_row_is_given_the_time_that_it_takes() -> None:
    one = SimpleNamespace(built={"fast": {"call_s": 0.001}, "slow": {"call_s": 40.0}})
    assert due_s(one, "fast", 12) == due_s(one, "unknown", 12) == ANSWER_S
    assert due_s(one, "slow", 1) == 800.0
    assert due_s(one, "slow", 2, least_s=5000.0) == 5000.0
