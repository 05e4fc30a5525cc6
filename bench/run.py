"""The job: fresh worker processes one after another, their events gathered, the result kept whatever happens."""

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from bench import environment
from bench.contenders import CONTENDERS, REFERENCE
from bench.measurement import Measurement
from bench.workload import Workload
from sampler import runtime
from sampler.errors import UsageError, unknown

AXIS_ROWS = (REFERENCE, "batched-cfg")


def measure(
    workload: Workload,
    rows: list[str] | None = None,
    say=lambda text: None,
    command: str = "python -m bench run",
    plant: str | None = None,
) -> Measurement:
    """Measure the rows (all by default) against the reference, and return what was measured.

    say(text): told of progress. plant: a module with further contenders, for the harness's own tests.
    On Ctrl-C the measurement so far is returned with `interrupted` set.
    """
    names = _chosen(rows, plant)
    job = Measurement(
        workload, environment.fingerprint(workload.device), names, _now(), command
    )  # fmt: skip
    start = time.monotonic()
    try:
        _measure(job, names, say, plant)
    except KeyboardInterrupt:
        job.interrupted = True
    job.took_s = round(time.monotonic() - start, 1)
    return job


def _measure(job: Measurement, names: list[str], say, plant: str | None) -> None:
    workload = job.workload
    for name in names:
        if name in CONTENDERS and (why := CONTENDERS[name].unavailable(workload.device)):
            job.events.append({"event": "unavailable", "row": name, "message": why})
    able = [n for n in names if not job.of("unavailable", n)]
    task: dict[str, Any] = {"workload": workload.json(), "plant": plant, "rounds": workload.rounds}

    say("first calls: compiling what is to be compiled (cached for the next run)")
    halves = _halves(able)
    with_workers = [
        _Worker({**task, "rows": [REFERENCE, *half], "phases": ["probe"], "seed": 0, "core": core}, i)
        for i, (half, core) in enumerate(zip(halves, _cores(len(halves), workload), strict=True))
    ]
    seen: set[str] = set()
    for event in _gather(with_workers):
        if event.get("row") == REFERENCE:
            if event["event"] in seen:
                continue
            seen.add(event["event"])
        _take(job, event, -1, say, "preparing")
    if job.of("error", REFERENCE):
        raise UsageError(f"the reference itself failed: {job.row(REFERENCE).reason}")

    began = time.monotonic()
    rng = random.Random(f"{workload.seed} {job.started}")
    process = 0
    # whole runs get what the pairs are expected to leave: half of the budget
    pairs_s = workload.budget_s * 0.45 / workload.processes
    while process < workload.max_processes:
        base = process < workload.processes
        pending = [n for n in able if n != REFERENCE and not job.row(n).reason]
        if not base:
            pending = [n for n in pending if job.row(n).needs_longer]
        left_s = workload.budget_s - (time.monotonic() - began)
        if not pending or (not base and left_s < 20):
            break
        phases = ["pairs"]
        extra: dict[str, Any] = {}
        if process == 0:
            phases.append("axis")
            extra = {
                "axis_rows": [n for n in AXIS_ROWS if n in able],
                "axis_slices": max(3, workload.rounds // 2),
            }
        if base and process == workload.processes - 1:
            phases.append("whole")
            extra["whole_until_s"] = left_s
            if workload.quality_samples:
                phases.append("quality")
                extra["quality_samples"] = workload.quality_samples
        one = {
            **task, **extra, "rows": [REFERENCE, *pending], "phases": phases,
            "seed": rng.getrandbits(48), "core": _cores(1, workload, rng)[0],
            "pairs_s": pairs_s if base else max(5.0, min(left_s - 10, pairs_s)),
        }  # fmt: skip
        label = f"process {process + 1} of {workload.processes if base else workload.max_processes}"
        for event in _gather([_Worker(one, process)]):
            done_s = time.monotonic() - began
            _take(job, event, process, say, f"{label}, {max(0, workload.budget_s - done_s):.0f} s left at most")
        process += 1


def _halves(able: list[str]) -> list[list[str]]:
    """The rows in two lots of about the same compile work, to use two cores while nothing is timed."""
    compiles = (runtime.compiled, runtime.compiled_frozen)
    heavy = [n for n in able if n in CONTENDERS and CONTENDERS[n].variant.runtime in compiles]
    if (os.cpu_count() or 1) < 2 or len(heavy) < 2:
        return [[n for n in able if n != REFERENCE]]
    alone = [n for n in heavy if CONTENDERS[n].variant.name == CONTENDERS[heavy[0]].variant.name]
    return [alone, [n for n in able if n not in alone and n != REFERENCE]]


def _cores(count: int, workload: Workload, rng: random.Random | None = None) -> list[int | None]:
    """Cores to pin to: drawn at random where a generator is given; none where several threads are asked for."""
    if not hasattr(os, "sched_getaffinity") or workload.threads > 1 or workload.device != "cpu":
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [rng.choice(cores) if rng else cores[i % len(cores)] for i in range(count)]


def _take(job: Measurement, event: dict[str, Any], process: int, say, label: str) -> None:
    """Keep an event, and tell of it."""
    kind = event["event"]
    if kind == "doing":
        say(f"{label}: {event['text']}")
    elif kind == "error":
        if not job.of("error", event["row"]):
            job.events.append({**event, "process": process})
            say(f"{event['row']} failed: {event['message']}")
    elif kind == "died":
        job.events.append({**event, "process": process})
        say(f"{label}: a worker ended early: {event['message']}")
    elif kind != "done":
        job.events.append({**event, "process": process})
        if kind == "pair":
            say(f"{label}: round {event['round'] + 1}, {event['row']}")


class _Worker:
    """A fresh process of `bench.worker`, its events read by a thread."""

    def __init__(self, task: dict[str, Any], number: int):
        self.task, self.number = task, number
        environ = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", json.dumps(task)], cwd=environment.ROOT, env=environ,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.complaints: list[str] = []


def _gather(workers: list[_Worker]) -> Iterator[dict[str, Any]]:
    """Events of all workers as they come; a worker that ends without 'done' gives a 'died' event."""
    events: queue.Queue = queue.Queue()

    def listen(worker: _Worker) -> None:
        finished, doing = False, ""
        for line in worker.process.stdout or ():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of a killed worker may be cut
            finished |= event["event"] == "done"
            doing = event.get("text", doing)
            events.put(event)
        code = worker.process.wait()
        if not finished:
            overhearing[worker.number].join(timeout=2)
            tail = [line for line in worker.complaints if line.strip()][-1:] or ["no message"]
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            where = f" during '{doing}'" if doing else ""
            events.put({"event": "died", "message": f"{how}{where}; last words: {tail[0].strip()}"})
        events.put(None)

    def overhear(worker: _Worker) -> None:
        for line in worker.process.stderr or ():
            worker.complaints.append(line)

    overhearing = {w.number: threading.Thread(target=overhear, args=(w,), daemon=True) for w in workers}
    for worker in workers:
        overhearing[worker.number].start()
        threading.Thread(target=listen, args=(worker,), daemon=True).start()
    ended = 0
    try:
        while ended < len(workers):
            event = events.get()
            if event is None:
                ended += 1
            else:
                yield event
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


def _chosen(rows: list[str] | None, plant: str | None) -> list[str]:
    if rows is None:
        return list(CONTENDERS)
    known = set(CONTENDERS)
    if plant:
        import importlib

        known |= {c.name for c in importlib.import_module(plant).CONTENDERS}
    for name in rows:
        if name not in known:
            raise unknown("row", name, known)
    chosen = list(dict.fromkeys([REFERENCE, *rows]))
    if len(chosen) == 1:
        raise UsageError(f"{REFERENCE!r} alone has nothing to be compared with; ask for another row too")
    return chosen


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
