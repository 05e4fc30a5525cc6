"""Real processes that hang, stop, die and lose their parent: none is waited for without end, none is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import environment
from bench.contenders import REFERENCE
from bench.crew import Worker, each, in_lanes
from bench.patience import Patience
from bench.process import Gone, Process, wait_for
from bench.workload import workload

MODULE = "tests.bench.answerer"
SOON_S, MUCH_S = 2.0, 60.0  # a deadline; and what a busy machine may take to do what takes no time
COMMAND = [sys.executable, "-P", "-m", "bench.child", MODULE]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def state(pid: int) -> str:
    """Of a process, as the system has it; '' where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def becomes(pid: int, states: tuple[str, ...]) -> bool:
    until = time.monotonic() + MUCH_S
    while state(pid) not in states and time.monotonic() < until:
        time.sleep(0.02)
    return state(pid) in states


GONE = ("", "Z")


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process(COMMAND, environment.for_fresh_processes())
    yield made
    made.end()


def ask(process: Process, *answers: dict) -> None:
    process.write({"answers": list(answers)})


def test_lines_come_in_their_order_and_what_is_printed_is_none(process: Process) -> None:
    ask(process, {"a": 1}, {"act": "print"}, {"b": "ü"})
    assert process.line(MUCH_S) == {"a": 1}
    assert process.line(MUCH_S) == {"b": "ü"}
    assert process.line(0.0) is None


@pytest.mark.parametrize("act", ["sleep", "compute", "stop"])
def test_no_answer_is_waited_for_longer_than_asked_and_whoever_gives_none_can_be_ended(process: Process, act) -> None:
    ask(process, {"event": "ready"}, {"act": act}, {"event": "never"})
    assert process.line(MUCH_S) == {"event": "ready"}
    if act == "stop":
        assert becomes(process.process.pid, ("T",))
    start = time.monotonic()
    assert process.line(0.5) is None
    assert 0.4 < time.monotonic() - start < MUCH_S
    assert process.is_stopped == (act == "stop")
    process.end()
    assert state(process.process.pid) == ""  # ended and reaped


@pytest.mark.parametrize(("act", "how", "by", "words"), [
    ("kill", "signal 9", 9, ""), ("exit", "exit code 1", 0, "last words"),
])  # fmt: skip
def test_how_it_ended_is_told_with_its_last_words(process: Process, act, how, by, words) -> None:
    ask(process, {"act": act})
    for _ in range(2):  # it stays so
        with pytest.raises(Gone, match=how) as gone:
            process.line(MUCH_S)
        assert (gone.value.signal, gone.value.words) == (by, words)


def test_what_it_complains_of_is_read_all_the_time_and_its_end_kept(process: Process) -> None:
    ask(process, {"act": "complain"}, {"event": "through"}, {"act": "kill"})
    assert process.line(MUCH_S) == {"event": "through"}  # a full pipe would have held it up
    with pytest.raises(Gone) as gone:
        process.line(MUCH_S)
    assert gone.value.words == "[1mmuch"  # without what colours a terminal


def test_one_that_closes_its_output_and_goes_on_is_ended(process: Process, monkeypatch) -> None:
    monkeypatch.setattr("bench.process.END_S", 0.5)
    ask(process, {"act": "close"}, {"act": "sleep"})
    with pytest.raises(Gone, match="signal 9"):
        process.line(MUCH_S)
    assert state(process.process.pid) == ""


def test_what_it_has_started_ends_with_it(process: Process) -> None:
    ask(process, {"act": "start"}, {"act": "sleep"})
    pid = process.line(MUCH_S)["pid"]
    assert state(pid) not in GONE
    process.end()
    assert becomes(pid, GONE)


def test_an_order_to_the_dead_is_no_error_but_the_wait_for_its_answer_is(process: Process) -> None:
    process.process.kill()
    becomes(process.process.pid, GONE)
    ask(process, {"event": "never"})
    with pytest.raises(Gone, match="signal 9"):
        process.line(MUCH_S)


def test_no_thread_that_may_end_before_it_starts_a_process() -> None:
    raised: list[Exception] = []

    def start() -> None:
        try:
            Process(COMMAND, environment.for_fresh_processes())
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(raised) == 1


PARENT = f"""
import json, sys, time
from bench import environment
from bench.process import Process
acts = json.loads(sys.argv[1])
made = [Process({COMMAND!r}, environment.for_fresh_processes()) for _ in acts]
for process, act in zip(made, acts):
    process.write({{"answers": [{{"event": "ready"}}, {{"act": act}}]}})
    assert process.line({MUCH_S}) is not None
print(json.dumps([process.process.pid for process in made]), flush=True)
time.sleep(3600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a process must run to see its input end")
def test_a_parent_that_is_killed_leaves_none_behind_whatever_they_are_at() -> None:
    acts = ["print", "sleep", "compute", "stop"]
    command = [sys.executable, "-c", PARENT, json.dumps(acts)]
    parent = subprocess.Popen(command, env=environment.for_fresh_processes(), stdout=subprocess.PIPE, text=True)
    pids = json.loads(parent.stdout.readline())
    assert len(pids) == 4
    assert becomes(pids[3], ("T",))
    parent.kill()
    parent.communicate()
    assert all(becomes(pid, GONE) for pid in pids)


def test_an_end_of_its_input_ends_it_whatever_it_is_at(process: Process) -> None:
    ask(process, {"event": "ready"}, {"act": "sleep"})
    assert process.line(MUCH_S) == {"event": "ready"}
    process.process.stdin.close()
    with pytest.raises(Gone, match="exit code 1"):
        process.line(MUCH_S)


def test_lines_that_came_together_are_not_waited_for_one_by_one(process: Process) -> None:
    ask(process, *({"i": i} for i in range(100)))
    assert process.line(MUCH_S) == {"i": 0}
    time.sleep(0.5)
    start = time.monotonic()
    for i in range(1, 100):
        assert wait_for([process], 1.0) == [process]
        assert process.line(0.0) == {"i": i}
    assert time.monotonic() - start < 10.0
    assert wait_for([process], 0.0) == []


# workers


def worker(number: int = 0, patience_s: float | None = SOON_S) -> Worker:
    job = workload("smoke", patience_s=patience_s)
    return Worker({"workload": job.json()}, number, MODULE, patience=Patience(job))


def order(*answers: dict) -> dict:
    return {"do": "build", "answers": [*answers, {"event": "done"}]}


def doing(row: str, phase: str = "first_call") -> dict:
    return {"event": "doing", "text": f"{phase} of {row}", "row": row, "phase": phase}


@pytest.mark.parametrize(("phase", "act", "said"), [
    ("first_call", "sleep", "no answer in 2 s during its first call"),
    ("slice", "compute", "no answer in 2 s during a timed slice"),
    ("part", "stop", "no answer in 2 s during a whole run; a signal had stopped it"),
])  # fmt: skip
def test_a_worker_that_misses_its_deadline_is_ended_and_says_of_what(phase: str, act: str, said: str) -> None:
    made = worker()
    start = time.monotonic()
    *_, event = made.obey(order(doing("ddim", phase), {"act": act}))
    assert (event["event"], event["doing"], event["message"]) == ("died", "ddim", said)
    assert event["silent_s"] > SOON_S
    assert SOON_S < time.monotonic() - start < MUCH_S
    assert made.dead
    assert not made.busy
    assert state(made.process.pid) == ""


def test_a_worker_that_was_stopped_while_it_waited_is_known_by_its_name_for_what_it_was_to_do() -> None:
    made = worker()
    assert list(made.obey(order({"event": "x"})))
    os.kill(made.process.pid, signal.SIGSTOP)
    (event,) = made.obey(order(doing("ddim")))
    assert (event["doing"], event["message"]) == (None, "no answer in 2 s during 'build'; a signal had stopped it")


def test_each_answer_has_the_whole_deadline_for_itself() -> None:
    made = worker(patience_s=4.0)
    said = list(made.obey(order(doing("ddim"), {"act": "nap"}, doing("strided"), {"act": "nap"}, {"event": "x"})))
    assert [event["event"] for event in said] == ["doing", "doing", "x"]
    made.end()


def test_time_in_which_nobody_listened_is_not_held_against_a_worker() -> None:
    """Whoever stops the parent (Ctrl-Z, a container that is frozen) may have stopped the worker too."""
    now = [0.0]
    job = workload("smoke", patience_s=10.0)
    made = Worker({"workload": job.json()}, 0, MODULE, patience=Patience(job), clock=lambda: now[0])
    made.begin(order(doing("ddim"), {"act": "sleep"}))
    while (event := made.hear(1.0)) is None:
        pass
    assert event["event"] == "doing"
    now[0] += 3600.0
    assert made.hear(0.0) is None
    for _ in range(9):
        now[0] += 1.0
        event = made.hear(0.0)
    assert event["message"] == "no answer in 10 s during its first call"


def test_a_killed_worker_names_the_signal_and_the_memory_there_was() -> None:
    made = worker()
    *_, event = made.obey(order(doing("ddim", "slice"), {"act": "kill"}))
    assert event["signal"] == signal.SIGKILL
    assert event["message"].startswith("signal 9, as the system does when memory runs out (there was ")
    assert "iB) during 'slice of ddim'; last words: no message" in event["message"]


def test_lanes_are_heard_side_by_side_and_the_dead_hold_up_nobody() -> None:
    crew = [worker(i, patience_s=None) for i in range(3)]
    answers = [
        [doing("ddim"), {"act": "kill"}],
        [doing(REFERENCE), {"event": "first_call", "row": REFERENCE, "seconds": 1.0, "steps": 1}],
    ]
    heard = list(in_lanes(crew, lambda w: order(*answers[w.number % 2]), 2, False))
    assert sorted(w.number for w, e in heard if e["event"] == "died") == [0, 2]
    assert [w.number for w, e in heard if e["event"] == "first_call"] == [1]
    again = list(each([(crew[1], order({"event": "x"}))], False))
    assert [(w.number, e["event"]) for w, e in again] == [(1, "x"), (1, "done")]
    for one in crew:
        one.end()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins nothing")
def test_a_lane_has_a_core_of_its_own() -> None:
    crew = [worker(i, patience_s=None) for i in range(2)]
    sent: list[int | None] = []
    for one in crew:
        one.write = lambda message, one=one: sent.append(message["core"]) or one.process.kill()
    list(each([(one, order()) for one in crew], True))
    cores = sorted(os.sched_getaffinity(0))
    assert sent == [cores[0], cores[1 % len(cores)]]
    for one in crew:
        one.end()
