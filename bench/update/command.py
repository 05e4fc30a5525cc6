"""`python -m bench update`: measures the update by itself and in the step, keeps it, prints it and draws it."""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench import environment, run, store
from bench.contenders import REFERENCE
from bench.measurement import Measurement
from bench.options import OPTIONS
from bench.progress import Progress
from bench.update import figure, record, sweep
from bench.update.ways import WAYS, Inputs, Way, unavailable
from bench.workload import Workload, workload
from sampler.errors import UsageError
from sampler.files import writable_folder
from sampler.models import RECIPES, checked_device

LARGE = ("pictures", "timeline")  # events that say nothing about the update
FOLDER = "update"  # below the machine's, where `store.newest` does not take it for a whole measurement


def add(commands) -> None:
    """Add the command and its options to an argparse sub-parser list."""
    command = commands.add_parser("update", help="measure the fused update: its bandwidth, and what it saves in a step")
    command.add_argument("--device", default="cpu", help=OPTIONS["device"]["help"])
    command.add_argument("--largest", type=float, metavar="MIB", default=None,
                         help="largest state, MiB of float32 (default: 2048 on a GPU, 32 on a CPU)")  # fmt: skip
    command.add_argument("--budget", type=float, metavar="SECONDS", default=40.0,
                         help="seconds for the sizes (default: %(default)s)")  # fmt: skip
    command.add_argument("--step-budget", type=float, metavar="SECONDS", default=80.0,
                         help="seconds for the step with and without it, 0: none (default: %(default)s)")  # fmt: skip
    command.add_argument("--step-from", type=Path, metavar="FILE",
                         help="take the step from a stored measurement instead of timing it")  # fmt: skip
    command.add_argument("--out", type=Path, default=store.RESULTS, metavar="DIR", help="results folder (%(default)s)")
    command.add_argument(
        "--again",
        type=Path,
        metavar="FILE",
        help="only draw and print a stored update.json again, with --step-from beside a step",
    )
    command.set_defaults(do=main)


def main(arguments: argparse.Namespace) -> int:
    if arguments.again:
        return _again(arguments)
    if not arguments.budget > 0 or not arguments.step_budget >= 0:
        raise UsageError("the budgets are seconds: --budget above 0, --step-budget 0 or above")
    device = checked_device(arguments.device)
    folder = writable_folder(arguments.out / environment.machine(arguments.device) / FOLDER)
    with Progress() as progress:
        command = "python -m bench " + " ".join(sys.argv[1:])
        step = _step(arguments, progress.say, command)
        job = step.workload if step else workload("quick", device=arguments.device)
        cost = measure(device, job, arguments.largest, arguments.budget, progress.say, command)
        cost.step = step
    record.save(cost, folder / "update.json")
    return _write(cost, folder)


def _again(arguments: argparse.Namespace) -> int:
    """A stored run once more; with a step that was measured after it, which it then keeps."""
    cost = record.load(arguments.again)
    if arguments.step_from:
        arguments.device = cost.device
        cost.step = _step(arguments, print, cost.command)
        record.save(cost, arguments.again)
    return _write(cost, arguments.again.parent)


def _write(cost: record.UpdateCost, folder: Path) -> int:
    store.write_atomically(folder / "update.png", figure.png(cost))
    print(figure.table(cost))
    print(f"\nresult: {folder / 'update.json'}\nmade from it: {folder / 'update.png'}")
    wrong = [p for p in (*cost.sweep, *cost.in_the_loop) if p.reason.startswith("ArithmeticError")]
    for point in wrong:
        print(f"FAILED {point.way}: {point.reason}", file=sys.stderr)
    if cost.interrupted:
        print("interrupted: what was measured until then is kept", file=sys.stderr)
        return 130
    return 1 if wrong else 0


def _step(arguments: argparse.Namespace, say, command: str) -> Measurement | None:
    """The reference and the row of the fused update, from a stored measurement or by pairs of fresh processes."""
    row = figure.fused_row(arguments.device)
    if arguments.step_from:
        stored = store.load(arguments.step_from)
        if stored.row(row).speedup is None:
            raise UsageError(f"{arguments.step_from} holds no speed-up of the row {row!r}")
        events = [e for e in stored.events if e.get("row") in (row, REFERENCE) and e["event"] not in LARGE]
        return replace(stored, rows=[REFERENCE, row], events=events)
    if not arguments.step_budget:
        return None
    return run.measure(workload("quick", device=arguments.device, budget_s=arguments.step_budget), [row], say, command)


def measure(device: torch.device, job: Workload, largest_mib: float | None, budget_s: float, say, command: str,
            sizes_mib: Sequence[float] = ()) -> record.UpdateCost:  # fmt: skip
    """The ways at every size, and at the workload's own shape. One CPU thread."""
    torch.set_num_threads(1)
    sizes_mib = sizes_mib or sweep.SIZES_MIB[device.type]
    largest_mib = largest_mib or max(sizes_mib)
    cache_bytes = sweep.last_cache_bytes(device)
    timer, rng = sweep.timer_for(device), random.Random(0)
    absent = {way.name: why for way in WAYS.values() if (why := unavailable(way, device))}
    able = [way for way in WAYS.values() if way.name not in absent]
    cost = record.UpdateCost(
        environment.fingerprint(str(device)), datetime.now(UTC).isoformat(timespec="seconds"), command, str(device),
        cache_bytes, [], [],
    )  # fmt: skip
    shapes = [sweep.shape_of(size) for size in sorted(sizes_mib, reverse=True) if size <= largest_mib]
    shapes = [shape for shape in shapes if sweep.fits(shape, sweep.free_bytes(device))]
    cost.in_the_loop = [record.Point(name, (0,), WAYS[name].bytes_per_element, reason=why)
                        for name, why in absent.items() if WAYS[name].needs != _other(device)]  # fmt: skip
    share_s = budget_s / (1 + len(shapes))
    try:
        with torch.inference_mode():
            say("the update at the workload's own shape")
            cost.in_the_loop += _in_the_loop(job, able, device, timer, share_s, rng)
            for shape in shapes:
                say(f"the update of {shape}, {len(able)} ways")
                sets = sweep.sets_of(shape, device, cache_bytes)
                cost.sweep += sweep.time_size(able, sets, device, timer, share_s, rng)
                del sets
                if device.type == "cuda":
                    torch.cuda.empty_cache()  # blocks of this size are of no use to the next
    except KeyboardInterrupt:
        cost.interrupted = True
    return cost


def _other(device: torch.device) -> str:
    return "cpu" if device.type == "cuda" else "cuda"


def _in_the_loop(job: Workload, ways: list[Way], device, timer, budget_s: float, rng) -> list[record.Point]:
    """One set of inputs in the workload's shape, over and over: as warm as a step leaves them."""
    config = RECIPES[job.model].config
    shape = (job.batch, config.image_channels, config.image_size, config.image_size)
    return sweep.time_size(ways, [Inputs.draw(shape, device)], device, timer, budget_s, rng)
