"""Runs that were broken off: what a journal holds of one, and whether it can be gone on with here and now."""

import contextlib
import hashlib
import subprocess
from pathlib import Path
from typing import Any

from bench import journal, store
from bench.environment import ROOT
from bench.journal import Journal
from bench.measurement import SCHEMA, Measurement
from sampler import strict_json
from sampler.errors import UsageError

SUFFIX = ".journal"
MOMENTARY = ("load_1min",)


def begin(job: Measurement, result: Path, asked: dict[str, Any]) -> Journal:
    """The journal of a run that begins, or goes on; it lies where the result will. asked: beside the workload."""
    return Journal(result.with_suffix(SUFFIX), _head(job, asked))


def _head(job: Measurement, asked: dict[str, Any]) -> dict[str, Any]:
    run = {name: value for name, value in job.json().items() if name not in ("events", "interrupted", "took_s")}
    return {"kind": "run", "run": run, "asked": asked, "changes": changes()}


def changes() -> str:
    """What the checkout holds that its commit does not, as a digest; '' where that is nothing."""
    command = ["git", "-C", str(ROOT), "diff", "HEAD", "--", ".", ":!results"]
    try:
        told = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):  # git does not tell: the environment says 'unknown' and dirty
        return ""
    return hashlib.sha256(told).hexdigest()[:16] if told else ""


def journals(folder: Path) -> list[Path]:
    """The journals of runs that no process is at, the newest last."""
    found = sorted(Path(folder).glob(f"2*{SUFFIX}"))
    return [path for path in found if not journal.is_written(path)]


def newest_of_each(results: Path | None = None) -> list[Path]:
    """Of every machine the newest result, or the journal of a run that was broken off after it."""
    found: dict[str, Path] = {}
    with contextlib.suppress(UsageError):  # no result at all
        found = {path.parent.name: path for path in store.newest_of_each(results)}
    for folder in (folder for place in store.places(results) for folder in sorted(Path(place).glob("*"))):
        left = journals(folder)
        # of one name: the result of a run that was interrupted, which holds what its journal does
        if left and (folder.name not in found or _stem(found[folder.name]) < _stem(left[-1])):
            found[folder.name] = left[-1]
    return [found[name] for name in sorted(found)] or store.newest_of_each(results)  # which says that there is none


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def load(path: Path) -> Measurement:
    """What was measured until the run was broken off."""
    head, events, _ = journal.read(path)
    try:
        if head is None or head["kind"] != "run" or head["run"]["schema"] != SCHEMA:
            raise UsageError(f"{path} is no journal of a run that this version reads; remove it")
        job = Measurement.from_json({**head["run"], "events": [], "interrupted": True, "took_s": 0.0})
        for event in events:
            job.took_s = event.pop("at", job.took_s)
            job.keep(event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a whole journal ({type(error).__name__}: {error}); remove it") from None
    return job


def timed_s(events: list[dict[str, Any]]) -> float:
    """Seconds of the timing budget that a journal's events took: of each group, from its 'budget' on."""
    found, began, before = 0.0, None, 0.0
    for event in events:
        if event["event"] in ("budget", "resumed") and began is not None:
            found, began = found + before - began, None
        if event["event"] == "budget":
            began = event["at"]
        before = event["at"]
    return found + (before - began if began is not None else 0.0)


def said(path: Path, job: Measurement) -> str:
    """What there is of a run, in one sentence."""
    inspected = {e["row"] for e in job.of("inspected")}
    timed = {e["row"] for e in job.of("pair")}
    return (f"{path.name} holds a run that was broken off after {job.took_s:.0f} s: {len(inspected)} of "
            f"{len(job.rows)} rows inspected, {len(timed)} timed in {len(job.of('pair')):,} pairs")  # fmt: skip


def to_go_on_with(now: Measurement, folder: Path, asked: dict[str, Any]) -> Measurement:
    """The newest run that was broken off, if it is this one: same commit, machine, workload, versions and rows."""
    paths = journals(folder)
    if not paths:
        raise UsageError(f"nothing to go on with: no run was broken off in {folder}; leave out --resume")
    earlier, head = load(paths[-1]), journal.read(paths[-1])[0]
    assert head is not None
    others = differences(head, _head(now, asked))
    if others:
        raise UsageError(f"{paths[-1].name} cannot be gone on with, for it differs in {'; '.join(others)}; leave out "
                         "--resume to measure anew")  # fmt: skip
    return earlier


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two heads differ that would make their figures differ, as 'name: one / other'."""
    one, other = _flat(stored), _flat(now)
    return [f"{name}: {one.get(name, 'nothing')} / {other.get(name, 'nothing')}"
            for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]  # fmt: skip


def _flat(head: dict[str, Any]) -> dict[str, Any]:
    head = strict_json.loads(strict_json.dumps(head))  # as one that was read is
    run = head["run"]
    found = {**head["asked"], "uncommitted changes": head["changes"], "rows": ", ".join(run["rows"]),
             **run["workload"], **run["environment"]}  # fmt: skip
    return {name: value for name, value in found.items() if name not in (*MOMENTARY, "patience_s")}
