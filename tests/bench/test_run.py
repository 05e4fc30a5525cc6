"""The whole job with real worker processes: what is kept when rows and workers fail, and when it is stopped."""

import os
import subprocess
import time
from dataclasses import replace

import pytest

from bench import run, timing
from bench.__main__ import failures
from bench.contenders import CONTENDERS
from bench.crew import Worker
from bench.measurement import Measurement
from bench.report import pictures, table
from bench.run import measure
from bench.workload import workload
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow

PLANT = "tests.bench.planted"
TINY = workload("smoke", steps=20, batch=1, batch_axis=(1,), budget_s=300.0)
TURNED = TINY.rounds * TINY.max_turns  # pairs a row: one process gives no interval, so every turn is taken
FAULTY = {
    "planted-raises": "RuntimeError: planted to raise",
    "planted-differs": "claims to change no picture, but",
    "planted-nan": "differs from the reference by nan",
    "planted-late": "ValueError: planted to raise late",
    "planted-dies-early": "killed (signal 9)",
    "planted-greedy": "out of memory at batch 1: RuntimeError: DefaultCPUAllocator: can't allocate memory",
    "planted-idle": "not shown to have engaged: no network call in",
    "planted-uncompiled": "the network ran eagerly",
}


@pytest.fixture(scope="module")
def faulty() -> Measurement:
    """Two rows that work among all that fail without taking the worker with them."""
    return measure(TINY, ["batched-cfg", *FAULTY, "ddim"], plant=PLANT)


def test_rows_that_work_are_measured_beside_those_that_do_not(faulty: Measurement) -> None:
    assert faulty.rows == ["reference", "batched-cfg", *FAULTY, "ddim"]
    for name, steps in (("reference", 20), ("batched-cfg", 20), ("ddim", 1)):
        row = faulty.row(name)
        assert (row.status, row.steps) == ("ok", steps), row.reason
        assert len(row.step_s) == (TURNED if name != "reference" else len(faulty.of("pair")))
        assert row.whole_run_timed_s is not None or name == "reference"
        assert row.speedup.value > 0
    assert faulty.row("batched-cfg").probe_error < 1e-3
    assert faulty.row("ddim").probe_error is None  # it has a path of its own
    assert {(e["row"], e["batch"]) for e in faulty.of("axis")} == {("reference", 1), ("batched-cfg", 1)}
    assert not faulty.interrupted
    assert not faulty.of("died")


def test_the_whole_run_of_the_reference_is_timed_and_drawn(faulty: Measurement) -> None:
    assert faulty.row("reference").whole_run_timed_s is not None
    assert faulty.row("batched-cfg").slices_against_whole is not None
    drawn = pictures.drawn(faulty)
    assert set(drawn) == {"reference", "batched-cfg", "ddim"}
    assert {p.shape for p in drawn.values()} == {(1, 1, 28, 28)}
    assert abs(drawn["reference"].astype(int) - drawn["batched-cfg"]).max() <= 2


def test_what_was_given_to_timing_is_kept(faulty: Measurement) -> None:
    (given,) = faulty.of("budget")
    assert given["seconds"] == faulty.workload.budget_s  # a smoke run gives building what it takes
    assert given["short_s"] == 0 < given["building_s"]


def test_faulty_rows_are_red_and_turn_the_exit(faulty: Measurement) -> None:
    for name, reason in FAULTY.items():
        row = faulty.row(name)
        assert row.status == "red"
        assert reason in row.reason
        assert row.speedup is None
    assert [name for name, _ in failures(faulty)] == list(FAULTY)
    shown = table.markdown(faulty)
    assert all(f"| {name} |" in shown for name in faulty.rows)


def test_a_killed_worker_keeps_what_was_measured_and_its_row_kills_no_other() -> None:
    twice = workload("smoke", steps=20, batch=1, batch_axis=(1,), budget_s=300.0, processes=2, rounds=12)
    job = measure(twice, ["batched-cfg", "planted-dies", "ddim"], plant=PLANT)
    first, death = job.of("died")  # killed, and killed again when it was tried alone
    assert {first["doing"], death["doing"]} == {"planted-dies"}
    assert "signal 9, as the system does when memory runs out (there was " in death["message"]
    status = {name: job.row(name).status for name in job.rows}
    assert status == {"reference": "ok", "batched-cfg": "ok", "planted-dies": "red", "ddim": "ok"}
    assert job.row("planted-dies").reason == f"its process ended: {death['message']}"
    for name in ("batched-cfg", "planted-dies", "ddim"):
        assert sum(pair["process"] == first["process"] for pair in job.row(name).pairs) >= 2
    for name in ("batched-cfg", "ddim"):  # 2: in the place of the one that was killed
        assert {pair["process"] for pair in job.row(name).pairs} == {0, 1, 2}
    assert [name for name, _ in failures(job)] == ["planted-dies"]
    assert all(f"| {name} |" in table.markdown(job) for name in job.rows)


def test_a_row_that_ends_the_processes_built_first_is_not_built_in_the_others(monkeypatch) -> None:
    monkeypatch.setattr(timing.cpu, "usable", lambda: 2)  # lanes
    job = measure(replace(TINY, processes=3), ["batched-cfg", "planted-dies-built"], plant=PLANT)
    assert 2 <= len(job.of("died")) <= 3  # the last of them alone
    assert {death["doing"] for death in job.of("died")} == {"planted-dies-built"}
    assert {name: job.row(name).status for name in job.rows} == {
        "reference": "ok", "batched-cfg": "ok", "planted-dies-built": "red",
    }  # fmt: skip
    assert len({pair["process"] for pair in job.row("batched-cfg").pairs}) == 3


HANGS = {
    "planted-sleeps-early": "no answer in 30 s during its first call",
    "planted-sleeps": "no answer in 30 s during a timed slice",
    "planted-sleeps-whole": "no answer in 30 s during a whole run",
    "planted-stops": "no answer in 30 s during a timed slice; a signal had stopped it",
}


@pytest.mark.long
def test_rows_that_never_answer_are_red_with_their_sentence_and_all_others_are_measured() -> None:
    asked = replace(TINY, patience_s=30.0)  # what takes milliseconds may take some seconds on a busy machine
    job = measure(asked, ["batched-cfg", *HANGS, "ddim"], plant=PLANT)
    assert {name: job.row(name).reason for name in HANGS} == HANGS
    assert [name for name, _ in failures(job)] == list(HANGS)
    for name in ("batched-cfg", "ddim"):
        row = job.row(name)
        assert (row.status, row.whole_run_timed_s is not None) == ("ok", True), row.reason
        assert len(row.pairs) >= TURNED
    assert set(pictures.drawn(job)) >= {"reference", "batched-cfg", "ddim"}


def test_an_interrupt_keeps_what_was_measured_and_leaves_no_worker(monkeypatch) -> None:
    started: list[subprocess.Popen] = []
    popen = subprocess.Popen

    def remembered(*arguments, **options):
        process = popen(*arguments, **options)
        if {"bench.worker", "bench.nursery"} & set(arguments[0]):
            started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", remembered)

    def say(text: str) -> None:
        if "round 1" in text:
            raise KeyboardInterrupt

    job = measure(TINY, ["batched-cfg"], say)
    assert job.interrupted
    assert len(job.row("batched-cfg").pairs) == 1
    assert job.row("batched-cfg").probe_error is not None
    assert job.json()["interrupted"]
    assert len(started) == 3  # two nurseries, and a worker
    for process in started:
        assert process.poll() is not None
        with pytest.raises(ProcessLookupError):  # ended and reaped
            os.kill(process.pid, 0)


def test_a_worker_ends_when_its_parent_does() -> None:
    task = {"workload": TINY.json(), "plant": None, "rows": ["reference"], "seed": 0}
    worker = Worker(task, 0)
    worker.process.stdin.close()
    deadline = time.monotonic() + PATIENCE_S
    while worker.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.process.poll() == 1
    worker.end()


@pytest.mark.parametrize("rows", [["reference"], []])
def test_the_reference_alone_is_refused(rows: list[str]) -> None:
    with pytest.raises(ValueError, match="nothing to be compared with"):
        measure(TINY, rows)


def test_rows_that_cannot_run_here_start_nothing_and_do_not_turn_the_exit(monkeypatch) -> None:
    monkeypatch.setattr(run, "inspect_rows", lambda *arguments: pytest.fail("looked at the reference for nothing"))
    job = measure(TINY, ["cuda-graph"])
    assert {name: job.row(name).status for name in job.rows} == {"reference": "grey", "cuda-graph": "grey"}
    assert failures(job) == []
    assert "| needs CUDA |" in table.markdown(job)


def test_a_row_asked_for_twice_is_one_row() -> None:
    assert run._chosen(["ddim", "ddim", "reference"], CONTENDERS) == ["reference", "ddim"]
