"""A real run whose parent is killed again and again, where it hurts: no process is left, and it comes to its end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import environment, journal, store, unfinished
from bench.contenders import REFERENCE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")]
MARK = "DDPM_BENCH_TEST_MARK"
MUCH_S = 300.0  # for what a busy machine does in some seconds
TIMES, LINES = 5, 25  # it is killed, and so many lines at most after it has gone on


def started(results: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "bench", "run", "--preset", "smoke", "--rows", "batched-cfg,ddim",
               "--batch", "1", "--steps", "20", "--out", str(results), *more]  # fmt: skip
    environ = {**environment.for_fresh_processes(), MARK: str(results)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def marked(mark: str) -> list[int]:
    """Every process that was started, through however many others, with this mark in its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def lines(results: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in results.glob(f"*/2*{unfinished.SUFFIX}"))


def test_killed_again_and_again_it_leaves_no_process_and_ends_with_every_row(tmp_path: Path) -> None:
    results, rng = tmp_path / "results", random.Random(5)
    seen: list[list[dict]] = []
    for _ in range(TIMES):
        more = ["--resume"] if lines(results) else []
        process, upto = started(results, *more), lines(results) + rng.randint(2, LINES)
        until = time.monotonic() + MUCH_S
        while lines(results) < upto and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[0]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        until = time.monotonic() + 60
        while (left := marked(str(results))) and time.monotonic() < until:
            time.sleep(0.1)
        assert left == []
        (path,) = results.glob(f"*/2*{unfinished.SUFFIX}")
        seen.append(journal.read(path)[1])
    shown = subprocess.run([sys.executable, "-P", "-m", "bench", "report", str(path)], capture_output=True, text=True,
                           env=environment.for_fresh_processes(), check=True)  # fmt: skip
    assert "holds a run that was broken off after" in shown.stderr
    assert "INTERRUPTED" in (path.parent / "report.html").read_text()
    process = started(results, "--resume")
    said = process.communicate(timeout=2 * MUCH_S)[0]
    assert process.returncode == 0, said
    assert not path.exists()
    (result,) = results.glob("*/2*.json")
    job = store.load(result)
    assert {name: job.row(name).status for name in job.rows} == dict.fromkeys([REFERENCE, "batched-cfg", "ddim"], "ok")
    assert not job.interrupted
    assert len(job.of("resumed")) == TIMES
    # what was whole is there once
    assert sorted(e["row"] for e in job.of("inspected")) == sorted(job.rows)
    assert sorted(e["row"] for e in job.of("first_call")) == sorted(job.rows)
    assert all(job.row(name).whole_run_timed_s for name in job.rows)
    pairs = [{name: value for name, value in e.items() if name != "at"} for e in seen[-1] if e["event"] == "pair"]
    assert job.of("pair")[: len(pairs)] == pairs
