"""`python -m bench break-even ROW`: from how many images on a row pays, and whether it is so: both drawn for real.

What the compiler left in its cache is used, as it would be by whoever draws pictures next.
"""

import argparse
import math
import os
from dataclasses import dataclass

from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Worker
from bench.fitting import unfit
from bench.options import OPTIONS
from bench.workload import Workload, workload
from sampler.errors import UsageError, unknown

ASKED = ("device", "threads", "batch", "steps", "model", "guidance")  # of the job's options
WITHIN = 0.15  # of the reference's total, at the break-even
MOST_BATCHES = 1000


@dataclass(frozen=True)
class Start:
    """What a row takes: seconds to its first picture's first steps (load, build, compile), seconds a whole batch."""

    ready_s: float
    batch_s: float


def add_to(commands) -> None:
    parser = commands.add_parser("break-even", help="from how many images on a row pays; then draw as many with both")
    parser.add_argument("row", help="a row, by the names of `list`")
    for name in ASKED:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.row not in CONTENDERS:
        raise unknown("row", arguments.row, CONTENDERS)
    asked = workload("quick", **{name: getattr(arguments, name) for name in ASKED})
    if why := CONTENDERS[arguments.row].unavailable(asked.device) or unfit(CONTENDERS[arguments.row], asked):
        raise UsageError(f"row {arguments.row!r} cannot run here: {why}")
    theirs, mine = (start(asked, name) for name in (REFERENCE, arguments.row))
    count = batches(mine, theirs)
    if count is None:
        print(f"{arguments.row} never pays here: {mine.batch_s:.2f} s a batch against {theirs.batch_s:.2f} s")
        return 0
    images = count * asked.batch
    print(f"{arguments.row} pays from {math.ceil(images):,} images on: ready after {mine.ready_s:.1f} s, "
          f"then {mine.batch_s:.2f} s a batch of {asked.batch}, against {theirs.ready_s:.1f} s and "
          f"{theirs.batch_s:.2f} s")  # fmt: skip
    if count > MOST_BATCHES:
        print("too many to be drawn for a check")
        return 0
    reference_s, row_s = (drawn(asked, name, count) for name in (REFERENCE, arguments.row))
    off = row_s / reference_s - 1
    print(f"drawn with each, the steps of {images:.1f} images: {arguments.row} {row_s:.1f} s, {REFERENCE} "
          f"{reference_s:.1f} s, {off:+.1%} (allowed: {WITHIN:.0%} either way)")  # fmt: skip
    return 0 if abs(off) <= WITHIN else 1


def batches(row: Start, reference: Start) -> float | None:
    """After how many batches the row has caught up; None: never."""
    saved_s = reference.batch_s - row.batch_s
    return None if saved_s <= 0 else max(0.0, (row.ready_s - reference.ready_s) / saved_s)


def start(asked: Workload, row: str) -> Start:
    """Measured in a fresh process."""
    events = _events(asked, row, ("first_call", "pace"))
    first, pace = events["first_call"], events["pace"]
    return Start(first["load_s"] + first["seconds"], pace["step_s"] * pace["steps"])


def drawn(asked: Workload, row: str, count: float) -> float:
    """Seconds in which a fresh process draws so many batches (of the last one its share of steps), loading included."""
    return _events(asked, row, ("draw",), batches=count)["drawn"]["seconds"]


def _events(asked: Workload, row: str, looks: tuple[str, ...], **task) -> dict[str, dict]:
    """The events of one inspection, by kind."""
    nursery = Worker({"workload": asked.json(), "plant": None, "compiles": True, **task}, 0, "bench.nursery")
    core = min(os.sched_getaffinity(0)) if asked.device == "cpu" and hasattr(os, "sched_getaffinity") else None
    try:
        found = {e["event"]: e for e in nursery.obey({"row": row, "looks": list(looks), "core": core})}
    finally:
        nursery.end()
    for kind in ("error", "died"):
        if kind in found:
            raise UsageError(f"row {row!r} failed: {found[kind]['message']}")
    return found
