"""The job: fresh worker processes one after another, their events gathered, the result kept whatever happens."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import environment, store, timing, unfinished
from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.fitting import unfit
from bench.inspection import ALONE, LOOKS
from bench.measurement import Measurement
from bench.nurseries import inspected
from bench.patience import Patience
from bench.planted import planted
from bench.timing import pins
from bench.workload import Workload
from sampler.errors import UsageError, unknown

INSPECTION = -1  # the number of the processes that inspect


def measure(
    workload: Workload,
    rows: list[str] | None = None,
    say=lambda text: None,
    command: str = "python -m bench run",
    plant: str | None = None,
    watch: Callable[[Measurement], None] = lambda job: None,
    results: Path | None = None,
    resume: bool = False,
    below: str = "",
) -> Measurement:
    """Measure the rows (all by default) against the reference, and return what was measured.

    say(text): told of progress. watch(job): given the measurement at once, to look at while it grows.
    plant: a module with further contenders (see `bench.planted`).
    results: the folder in which a journal is kept until the result is, `below` that of the machine, as it is told to
    `store.save`; None: nowhere. resume: go on with the newest run there that was broken off.
    On Ctrl-C the measurement so far is returned with `interrupted` set.
    """
    return _worked(
        workload, rows, command, plant, lambda job, able: _measure(job, able, say, plant), watch,
        lambda job: _journalled(job, results, below, {"plant": plant}, resume, say),
    )  # fmt: skip


def _journalled(
    job: Measurement, results: Path | None, below: str, asked: dict[str, Any], resume: bool, say
) -> Measurement:
    """The measurement that is to be filled, with its journal: this one, or the one that is gone on with."""
    if results is None:
        return job
    folder = store.folder(job, results) / below
    left = unfinished.journals(folder)
    if resume:
        job = unfinished.to_go_on_with(job, folder, asked)
    elif left:
        say(
            f"{unfinished.said(left[-1], unfinished.load(left[-1]))}; --resume would go on with it, "
            f"and removing {left[-1]} forgets it"
        )
    job.journal = unfinished.begin(job, folder / store.name_of(job), asked)
    if resume:
        say(f"going on: {unfinished.said(left[-1], job)}")
        job.interrupted = False
        number = 1 + max((e.get("process", INSPECTION) for e in job.events), default=INSPECTION)
        job.keep({"event": "resumed", "timed_s": unfinished.timed_s(job.journal.events), "process": number})
    return job


def look(
    workload: Workload,
    rows: list[str] | None,
    looks: Sequence[str],
    say=lambda text: None,
    command: str = "python -m bench memory",
    plant: str | None = None,
    results: Path | None = None,
    resume: bool = False,
    below: str = "",
    **task: Any,
) -> Measurement:
    """Only inspect the rows, by these methods of `Inspection`; nothing is timed.

    results, resume, below: as `measure` has them. task: what the methods need to know.
    """

    def work(job: Measurement, able: list[str]) -> None:
        if missing := _not_inspected(job, able):
            inspect_rows(job, missing, {"workload": workload.json(), "plant": plant, **task}, say, looks, ())

    asked = {"plant": plant, "looks": list(looks), **task}
    return _worked(
        workload, rows, command, plant, work,
        journalled=lambda job: _journalled(job, results, below, asked, resume, say),
    )  # fmt: skip


def _worked(workload: Workload, rows: list[str] | None, command: str, plant: str | None,
            work: Callable[[Measurement, list[str]], None],
            watch: Callable[[Measurement], None] = lambda job: None,
            journalled: Callable[[Measurement], Measurement] = lambda job: job) -> Measurement:  # fmt: skip
    """A measurement of the rows that can run here, filled by `work`, as far as it came."""
    known = {**CONTENDERS, **{c.name: c for c in planted(plant)}}
    job = started(workload, command)
    names = job.rows = _chosen(rows, known)
    job = journalled(job)
    for name in names:
        if not job.of("contender", name):
            introduce(job, known[name], plant)
        why = known[name].unavailable(workload.device) or unfit(known[name], workload)
        if why and not job.of("unavailable", name):
            job.keep({"event": "unavailable", "row": name, "message": why})
    watch(job)
    start, before_s = time.monotonic(), job.took_s
    try:
        work(job, [n for n in names if not job.of("unavailable", n)])
    except KeyboardInterrupt:
        job.interrupted = True
    except UsageError:  # a reference that cannot run need not be gone on with
        if job.journal is not None:
            job.journal.close(finished=not job.of("pair"))
        raise
    job.took_s = round(before_s + time.monotonic() - start, 1)
    return job


def started(workload: Workload, command: str) -> Measurement:
    """A measurement on this machine of which nothing is measured yet."""
    found = {**environment.fingerprint(workload.device), "threads": workload.threads}
    return Measurement(workload, found, [], _now(), command)


def introduce(job: Measurement, contender: Contender, plant: str | None) -> None:
    """Keep what a row that is no shipped one says of itself; plant: the module that lists it."""
    if contender.name not in CONTENDERS:
        job.keep({"event": "contender", "row": contender.name, "lossless": contender.lossless,
                           "changes": contender.changes, "of": plant,
                           "budget": contender.budget and asdict(contender.budget)})  # fmt: skip


def _measure(job: Measurement, able: list[str], say, plant: str | None) -> None:
    workload = job.workload
    task: dict[str, Any] = {"workload": workload.json(), "plant": plant}

    if not _compared(job, able):
        return
    missing, alone = _not_inspected(job, able), () if job.of("roof") else ALONE
    if missing or alone:
        say("inspecting each row in a process of its own: first call (what is compiled is cached), memory, proofs")
        inspect_rows(job, missing, task, say, alone=alone)
    if job.of("error", REFERENCE):
        raise UsageError(f"the reference itself failed: {job.row(REFERENCE).reason}")
    if fit := _compared(job, able):
        time_rows(job, fit, task, say)


def _compared(job: Measurement, able: list[str]) -> list[str]:
    """The rows that can be timed; none where the reference is alone among them, and that is kept."""
    fit = [n for n in able if not job.of("unavailable", n)]
    if fit != [REFERENCE]:
        return fit
    why = "nothing to be compared with: no other row asked for can run here"
    job.keep({"event": "unavailable", "row": REFERENCE, "message": why})
    return []


def _not_inspected(job: Measurement, able: list[str]) -> list[str]:
    """The rows whose inspection has not come to its end; what was begun of one in a broken off run is begun anew."""
    seen = {e["row"] for e in (*job.of("inspected"), *job.of("error"), *job.of("unavailable"))}
    missing = [n for n in able if n not in seen]
    for name in missing if job.of("resumed") else ():
        job.keep({"event": "again", "row": name, "process": INSPECTION})
    return missing


def time_rows(job: Measurement, able: list[str], task: dict[str, Any], say, patience: Patience | None = None) -> None:
    """Time rows that were inspected, in fresh processes that take turns."""
    patience = patience or _patience(job, task)
    timing.time_rows(job, able, task, lambda event, process, label: _take(job, event, process, label, say),
                     say, patience)  # fmt: skip


def _patience(job: Measurement, task: dict[str, Any]) -> Patience:
    """What is known of the rows by now."""
    made = Patience(job.workload, planted(task.get("plant")))
    for event in job.of("first_call"):
        made.heard(event)
    return made


def inspect_rows(
    job: Measurement,
    able: list[str],
    task: dict[str, Any],
    say,
    looks: Sequence[str] = LOOKS,
    alone: Sequence[str] = ALONE,
) -> None:
    """Look at every row in a fresh process of its own, while nothing is timed."""
    for event in inspected(task, able, looks, job.workload, pins(job.workload), alone, _patience(job, task)):
        _take(job, event, INSPECTION, "inspecting", say)


def _take(job: Measurement, event: dict[str, Any], process: int, label: str, say) -> None:
    """Keep an event, and tell of it."""
    kind = event["event"]
    if kind == "doing":
        say(f"{label}: {event['text']}")
        return
    if kind == "done" or (kind == "error" and job.of("error", event["row"])):
        return
    job.keep({**event, "process": process})
    if kind == "unavailable":
        say(f"{event['row']} is left out: {event['message']}")
    elif kind == "error":
        say(f"{event['row']} failed: {event['message']}")
    elif kind == "again":
        say(f"{event['row']} is tried once more, alone: {event['message']}")
    elif kind == "died":
        say(f"{label}: a worker ended early: {event['message']}")
    elif kind == "evidence" and not all(ok for ok, _ in event["findings"]):
        say(f"{event['row']} failed: {job.row(event['row']).reason}")
    elif kind == "pair":
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
