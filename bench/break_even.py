"""`python -m bench break-even ROW`: from how many images on a row pays, and whether it is so: both drawn for real.

Every process starts with empty caches of compilers, as on a new machine; `--warm`: with what they hold by now.
"""

import argparse
import math
import os
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass

from bench import environment, store
from bench.contenders import CONTENDERS, REFERENCE
from bench.crew import Worker
from bench.fitting import unfit
from bench.options import OPTIONS, OUT
from bench.workload import Workload, workload
from sampler import strict_json
from sampler.errors import UsageError, unknown
from sampler.files import writable_folder

ASKED = ("device", "threads", "batch", "steps", "model", "guidance")  # of the job's options
WITHIN = 0.15  # of the reference's total, at the break-even
MOST_BATCHES = 1000
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "DDPM_BENCH_CACHE")  # Inductor's, Triton's, our C++'s


@dataclass(frozen=True)
class Start:
    """What a row takes: seconds until it is ready (load, build, compile, the first steps), seconds a whole batch."""

    ready_s: float
    batch_s: float


def add_to(commands) -> None:
    parser = commands.add_parser("break-even", help="from how many images on a row pays; then draw as many with both")
    parser.add_argument("row", help="a row, by the names of `list`")
    for name in ASKED:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.add_argument("--warm", action="store_true", help="keep what the compilers have in their caches")
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    row = arguments.row
    if row not in CONTENDERS:
        raise unknown("row", row, CONTENDERS)
    asked = workload("quick", **{name: getattr(arguments, name) for name in ASKED})
    if why := CONTENDERS[row].unavailable(asked.device) or unfit(CONTENDERS[row], asked):
        raise UsageError(f"row {row!r} cannot run here: {why}")
    folder = writable_folder((arguments.out or store.home(asked)) / environment.machine(asked.device) / "break-even")
    cold = not arguments.warm
    theirs, mine = (start(asked, name, cold) for name in (REFERENCE, row))
    count = batches(mine, theirs)
    if count is None:
        print(f"{row} never pays here: {mine.batch_s:.2f} s a batch against {theirs.batch_s:.2f} s")
        return 0
    images = math.ceil(count * asked.batch)
    print(f"{row} pays from {images:,} images on: ready after {mine.ready_s:.1f} s with {'empty' if cold else 'warm'} "
          f"caches, then {mine.batch_s:.2f} s a batch of {asked.batch}, against {theirs.ready_s:.1f} s and "
          f"{theirs.batch_s:.2f} s", flush=True)  # fmt: skip
    if count > MOST_BATCHES:
        print("too many to be drawn for a check")
        return 0
    reference_s, row_s = (drawn(asked, name, images / asked.batch, cold) for name in (REFERENCE, row))
    off = row_s / reference_s - 1
    print(f"{images:,} images drawn with each: {row} {row_s:.1f} s, {REFERENCE} {reference_s:.1f} s, {off:+.1%} "
          f"(allowed: {WITHIN:.0%} either way)")  # fmt: skip
    found = {
        "command": "python -m bench " + " ".join(sys.argv[1:]), "row": row, "cold": cold, "images": images,
        "row_s": row_s, "reference_s": reference_s, "off": off,
        "starts": {row: asdict(mine), REFERENCE: asdict(theirs)},
        "workload": asked.json(), "environment": environment.fingerprint(asked.device),
    }  # fmt: skip
    store.write_atomically(folder / f"{row}.json", strict_json.dumps(found, indent=1) + "\n")
    print(folder / f"{row}.json")
    return 0 if abs(off) <= WITHIN else 1


def batches(row: Start, reference: Start) -> float | None:
    """After how many batches the row has caught up; None: never."""
    saved_s = reference.batch_s - row.batch_s
    return None if saved_s <= 0 else max(0.0, (row.ready_s - reference.ready_s) / saved_s)


def start(asked: Workload, row: str, cold: bool) -> Start:
    """Measured in a fresh process."""
    found = _events(asked, row, "start", cold)
    return Start(found["ready_s"], found["step_s"] * found["steps"])


def drawn(asked: Workload, row: str, count: float, cold: bool) -> float:
    """Seconds in which a fresh process draws so many batches (of the last one its share of steps), loading included."""
    return _events(asked, row, "draw", cold, batches=count)["seconds"]


def _events(asked: Workload, row: str, look: str, cold: bool, **task) -> dict:
    """The last event of one method of `Inspection`, in a fresh process whose compilers have empty caches if `cold`."""
    core = min(os.sched_getaffinity(0)) if asked.device == "cpu" and hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory(prefix="ddpm-bench-") if cold else nullcontext() as empty:
        caches = {name: f"{empty}/{name}" for name in CACHES} if cold else {}
        nursery = Worker(
            {"workload": asked.json(), "plant": None, "compiles": True, **task}, 0, "bench.nursery", caches
        )
        try:
            *_, event = nursery.obey({"row": row, "looks": [look], "core": core})
        finally:
            nursery.end()
    if event["event"] in ("error", "died"):
        raise UsageError(f"row {row!r} failed: {event['message']}")
    return event
