"""The job: fresh worker processes one after another, their events gathered, the result kept whatever happens."""

import os
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from bench import environment
from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.crew import Worker, in_lanes
from bench.fitting import unfit
from bench.inspection import ALONE, LOOKS
from bench.measurement import Measurement
from bench.nurseries import inspected
from bench.planted import planted
from bench.workload import Workload
from sampler.errors import UsageError, unknown

AXIS_ROWS, AXIS_SLICES = (REFERENCE, "batched-cfg"), 5
LEAST_SHARE = 2 / 3  # of the budget, that building leaves
FIRST_TURNS = 2  # turns in which every row is timed, before only the undecided are


def measure(
    workload: Workload,
    rows: list[str] | None = None,
    say=lambda text: None,
    command: str = "python -m bench run",
    plant: str | None = None,
    watch: Callable[[Measurement], None] = lambda job: None,
) -> Measurement:
    """Measure the rows (all by default) against the reference, and return what was measured.

    say(text): told of progress. watch(job): given the measurement at once, to look at while it grows.
    plant: a module with further contenders (see `bench.planted`).
    On Ctrl-C the measurement so far is returned with `interrupted` set.
    """
    return _worked(workload, rows, command, plant, lambda job, able: _measure(job, able, say, plant), watch)


def look(
    workload: Workload,
    rows: list[str] | None,
    looks: Sequence[str],
    say=lambda text: None,
    command: str = "python -m bench memory",
    plant: str | None = None,
    **task: Any,
) -> Measurement:
    """Only inspect the rows, by these methods of `Inspection`; nothing is timed. task: what they need to know."""
    return _worked(workload, rows, command, plant, lambda job, able: inspect_rows(
        job, able, {"workload": workload.json(), "plant": plant, **task}, say, looks, ()
    ))  # fmt: skip


def _worked(workload: Workload, rows: list[str] | None, command: str, plant: str | None,
            work: Callable[[Measurement, list[str]], None],
            watch: Callable[[Measurement], None] = lambda job: None) -> Measurement:  # fmt: skip
    """A measurement of the rows that can run here, filled by `work`, as far as it came."""
    known = {**CONTENDERS, **{c.name: c for c in planted(plant)}}
    job = started(workload, command)
    names = job.rows = _chosen(rows, known)
    for name in names:
        introduce(job, known[name], plant)
        if why := known[name].unavailable(workload.device) or unfit(known[name], workload):
            job.events.append({"event": "unavailable", "row": name, "message": why})
    watch(job)
    start = time.monotonic()
    try:
        work(job, [n for n in names if not job.of("unavailable", n)])
    except KeyboardInterrupt:
        job.interrupted = True
    job.took_s = round(time.monotonic() - start, 1)
    return job


def started(workload: Workload, command: str) -> Measurement:
    """A measurement on this machine of which nothing is measured yet."""
    found = {**environment.fingerprint(workload.device), "threads": workload.threads}
    return Measurement(workload, found, [], _now(), command)


def introduce(job: Measurement, contender: Contender, plant: str | None) -> None:
    """Keep what a row that is no shipped one says of itself; plant: the module that lists it."""
    if contender.name not in CONTENDERS:
        job.events.append({"event": "contender", "row": contender.name, "lossless": contender.lossless,
                           "changes": contender.changes, "of": plant,
                           "budget": contender.budget and asdict(contender.budget)})  # fmt: skip


def _measure(job: Measurement, able: list[str], say, plant: str | None) -> None:
    workload = job.workload
    task: dict[str, Any] = {"workload": workload.json(), "plant": plant}

    if able == [REFERENCE]:
        why = "nothing to be compared with: no other row asked for can run here"
        job.events.append({"event": "unavailable", "row": REFERENCE, "message": why})
        return
    say("inspecting each row in a process of its own: first call (what is compiled is cached), memory, proofs")
    inspect_rows(job, able, task, say)
    if job.of("error", REFERENCE):
        raise UsageError(f"the reference itself failed: {job.row(REFERENCE).reason}")
    time_rows(job, able, task, say)


def time_rows(job: Measurement, able: list[str], task: dict[str, Any], say) -> None:
    """Time rows that were inspected, in fresh processes that take turns."""
    workload = job.workload
    rng = random.Random(f"{workload.seed} {job.started}")
    together = 1 if torch.device(workload.device).type == "cuda" else workload.processes
    budget_s, numbers = workload.budget_s, range(workload.processes)
    for group in (numbers[i : i + together] for i in range(0, len(numbers), together)):
        share_s = budget_s * len(group) / len(numbers)
        _time_group(job, group, able, task, share_s, rng, say, last=group[-1] == numbers[-1])


def inspect_rows(
    job: Measurement,
    able: list[str],
    task: dict[str, Any],
    say,
    looks: Sequence[str] = LOOKS,
    alone: Sequence[str] = ALONE,
) -> None:
    """Look at every row in a fresh process of its own, while nothing is timed."""
    for event in inspected(task, able, looks, job.workload, pins(job.workload), alone):
        _take(job, event, -1, say, "inspecting")


def _time_group(job: Measurement, numbers: Sequence[int], able: list[str], task: dict[str, Any], budget_s: float,
                rng: random.Random, say, last: bool) -> None:  # fmt: skip
    """Build a group of fresh processes side by side, then let them take turns, one timed at a time.

    Every row gets the first turns; then only those whose interval is still too wide. One process of the last group
    also times whole runs, in parts between the turns: a minute in which a neighbour disturbs falls on both.
    """
    workload = job.workload
    rows = [n for n in able if n != REFERENCE and not job.row(n).reason]
    orders = {n: [REFERENCE, *building_order(rows, n, workload.seed)] for n in numbers}
    crew = [Worker({**task, "rows": orders[n], "seed": rng.getrandbits(48)}, n) for n in numbers]

    def to_build(worker: Worker) -> dict[str, Any]:
        """Without what ended a process before this one."""
        fatal = {other.died_of for other in crew} - {REFERENCE}
        return {"do": "build", "rows": [n for n in orders[worker.number] if n not in fatal]}

    try:
        start_s = time.monotonic()
        say(f"building the rows in {len(crew)} fresh process{'es' * (len(crew) > 1)}")
        lanes = min(len(crew), os.cpu_count() or 1)
        for worker, event in in_lanes(crew, to_build, lanes, pins(workload)):
            if event["event"] != "first_call":  # those of the preparation count: these come from its caches
                _take(job, event, worker.number, say, f"building, process {worker.number + 1}")
        began = time.monotonic()
        built_s = began - start_s
        given_s, budget_s = budget_s, left_by_building(budget_s, built_s, workload, len(crew))
        job.events.append(
            {"event": "budget", "seconds": budget_s, "short_s": given_s - budget_s, "building_s": built_s}
        )
        wholes_here = last and workload.whole_share > 0
        whole_s, spent_on_whole_s = budget_s * workload.whole_share if wholes_here else 0.0, 0.0

        def give(worker: Worker, **order: Any) -> None:
            if worker.dead:
                return
            core = rng.choice(sorted(os.sched_getaffinity(0))) if pins(workload) else None
            for event in worker.obey({**order, "core": core}):
                left_s = max(0.0, budget_s - (time.monotonic() - began))
                label = f"process {worker.number + 1} of {workload.processes}, {left_s:.0f} s left at most"
                _take(job, event, worker.number, say, label)

        def sound() -> list[str]:
            return [n for n in rows if not job.row(n).reason]

        if numbers[0] == 0 and (lives := next((w for w in crew if not w.dead), None)):
            give(lives, do="axis", rows=[n for n in AXIS_ROWS if n in (REFERENCE, *sound())], slices=AXIS_SLICES)

        def go_on_whole(worker: Worker, until: float) -> None:
            nonlocal spent_on_whole_s
            start = time.monotonic()
            seconds = budget_s - (start - began) if until == 1 else whole_s
            give(worker, do="whole", rows=[REFERENCE, *sound()], seconds=seconds, until=until)
            spent_on_whole_s += time.monotonic() - start

        def left_for_turns_s() -> float:
            return budget_s - whole_s - (time.monotonic() - began - spent_on_whole_s)

        turn, whole = 0, None
        while True:
            left_s = left_for_turns_s()
            pending = [n for n in sound() if turn < FIRST_TURNS or job.row(n).needs_longer]
            crew = [w for w in crew if not w.dead]
            if not pending or not crew or (turn and left_s <= 0):
                break
            rng.shuffle(crew)
            seconds = max(1.0, left_s / len(crew) / max(1, FIRST_TURNS - turn))
            if turn == 1 and wholes_here:
                whole, from_here_s = crew[0], left_s
            for worker in crew:
                still = [n for n in sound() if n in pending]  # what ended one process is not let into the next
                give(worker, do="pairs", rows=still, rounds=workload.rounds, seconds=seconds)
                if whole is not None and not whole.dead:
                    go_on_whole(whole, until=min(1.0, 1 - left_for_turns_s() / from_here_s))
            turn += 1
            if turn >= workload.max_turns:
                break
        alive = [w for w in crew if not w.dead]
        if last and alive:
            whole = whole or alive[-1]
            if wholes_here and not whole.dead:
                go_on_whole(whole, until=1.0)
            if judge := next((w for w in alive if not w.dead), None):
                give(judge, do="judge", rows=[REFERENCE, *sound()], seconds=workload.quality_s)
    finally:
        for worker in crew:
            worker.end()


def left_by_building(budget_s: float, built_s: float, workload: Workload, processes: int) -> float:
    """The budget of a group of processes whose building took so long: less, where the preset says what it may take."""
    if workload.building_s is None:
        return budget_s
    over_s = built_s - workload.building_s * processes / workload.processes
    return max(LEAST_SHARE * budget_s, budget_s - max(0.0, over_s))


def building_order(rows: list[str], process: int, seed: int) -> list[str]:
    """Rows in an order drawn for each pair of processes, the second of which has it reversed.

    What is built first may decide where weights and code come to lie. That this is worth anything was not shown (of two
    rows alike, the one built second was ahead in six of eight processes: chance does that too); but were it, an order
    that is the same in every process would make it a property of the row, inside no interval.
    """
    order = random.Random(f"{seed} {process // 2}").sample(rows, len(rows))
    return order[::-1] if process % 2 else order


def pins(workload: Workload) -> bool:
    """Whether a process is pinned to one core: on the CPU with one thread, where the system can."""
    return hasattr(os, "sched_getaffinity") and workload.threads == 1 and workload.device == "cpu"


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
    elif kind == "evidence":
        # counts of a process grow: its latest word replaces its earlier one
        same = (event["row"], event["where"], process)
        job.events = [e for e in job.events if e["event"] != kind or (e["row"], e["where"], e["process"]) != same]
        job.events.append({**event, "process": process})
        if not all(ok for ok, _ in event["findings"]):
            say(f"{event['row']} failed: {job.row(event['row']).reason}")
    elif kind != "done":
        job.events.append({**event, "process": process})
        if kind == "pair":
            say(f"{label}: round {event['round'] + 1}, {event['row']}")


def _chosen(rows: list[str] | None, known: Collection[str]) -> list[str]:
    if rows is None:
        return list(CONTENDERS)
    for name in rows:
        if name not in known:
            raise unknown("row", name, known)
    chosen = list(dict.fromkeys([REFERENCE, *rows]))
    if len(chosen) == 1:
        raise UsageError(f"{REFERENCE!r} alone has nothing to be compared with; ask for another row too")
    return chosen


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
