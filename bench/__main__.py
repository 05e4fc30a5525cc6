"""`python -m bench`: the job without pytest, and what belongs to it."""

from sampler import start

STOPPED = "stopped"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import sys
from pathlib import Path
from typing import NoReturn

import torch

from bench import break_even, gpu, memory_command, overhead, peers_command, report, scaling, store, walk
from bench import keep as keep_command
from bench.contenders import CONTENDERS
from bench.environment import advice, differences, fingerprint, machine
from bench.gate import command as gate
from bench.gate import stored_commands
from bench.options import OUT, add_options, from_options
from bench.planted import planted
from bench.progress import Progress
from bench.quality import command as quality_command
from bench.quality import divergence, folders
from bench.report import command as report_command
from bench.report import sources, terminal
from bench.run import measure
from bench.tune import command as tune_command
from bench.update import command as update_command
from sampler.errors import UsageError, unknown, until_the_reader_leaves
from sampler.files import writable_folder
from sampler.models import checked_device

UNSURE_EXIT, USAGE_EXIT = 2, 3


def main(argv: list[str] | None = None) -> int:
    try:
        return until_the_reader_leaves(lambda: _do(argv))
    except UsageError as error:
        start.say(f"error: {error}")
        return USAGE_EXIT
    except KeyboardInterrupt:
        start.say(STOPPED)
        return start.INTERRUPTED


def _do(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.do(arguments)


class _Parser(argparse.ArgumentParser):
    """Ends with 3 on a mistake: argparse's own 2 is what the gate says where it could not judge."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE_EXIT, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench",
        description="Measure what makes diffusion sampling faster on this machine, and what it costs.",
        epilog="Exit codes: 0 all rows fine, 1 a row failed, 2 a row is unsure (with --strict alone), 3 a mistake in "
        "what was asked, 130 interrupted; of the gate: see gate --help.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure, and write the table, the CSV and the pictures")
    add_options(run.add_argument, prefix="--")
    run.add_argument("--contenders", metavar="MODULE", help="further rows: the CONTENDERS of package.module or file.py")
    run.add_argument("--rows", metavar="A,B", help="only these rows (and the reference), by the names of `list`")
    run.add_argument("--strict", action="store_true", help="exit 2 where a row is not shown to keep its quality budget")
    run.add_argument("--out", **OUT)
    run.set_defaults(do=_run)

    show = commands.add_parser("list", help="print the rows: what each changes and what it needs")
    show.add_argument("--device", default="cpu", help="say what cannot run on this device (%(default)s)")
    show.set_defaults(do=_list)

    doctor = commands.add_parser("doctor", help="say what this machine can measure and what would disturb it")
    doctor.add_argument("--device", default="cpu", help="device to measure on (%(default)s)")
    doctor.set_defaults(do=_doctor)

    memory_command.add_to(commands)
    break_even.add_to(commands)
    overhead.add_to(commands)
    walk.add_to(commands)
    divergence.add_to(commands)
    peers_command.add_to(commands)
    scaling.add_to(commands)
    quality_command.add_to(commands)
    folders.add_to(commands)
    tune_command.add_to(commands)

    report_command.add_to(commands)
    keep_command.add_to(commands)
    update_command.add(commands)
    gpu.add(commands)
    gate.add_parser(commands)
    gate.add_calibrate_parser(commands)
    stored_commands.add_parsers(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    workload = from_options(arguments)
    extra = [contender.name for contender in planted(arguments.contenders)]
    rows = gate.names_in(arguments.rows) or [*CONTENDERS, *extra]
    results = writable_folder(arguments.out or store.home(workload))  # refused before the work, not after it
    with Progress() as progress:
        command = "python -m bench " + " ".join(sys.argv[1:])
        measurement = measure(workload, rows, progress.say, command, arguments.contenders, watch=progress.watch)
    path, outputs = keep(measurement, results)
    terminal.show(measurement)
    print(f"\nresult: {path}\nmade from it: {', '.join(str(p) for p in outputs)}")
    if measurement.interrupted:
        print("interrupted: what was measured until then is kept", file=sys.stderr)
        return start.INTERRUPTED
    failed = failures(measurement)
    for name, reason in failed:
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else UNSURE_EXIT if arguments.strict and unsure(measurement) else 0


def keep(measurement, results: Path | None = None):
    """Store a measurement and write everything made from it; returns the paths."""
    path = store.save(measurement, results)
    return path, report.write(measurement, path.parent, sources.beside(path.parent))


def failures(measurement) -> list[tuple[str, str]]:
    """The rows that turn the exit: those that failed, and those that should have been measured and were not."""
    rows = [measurement.row(name) for name in measurement.rows]
    return [(r.name, r.reason or r.absence) for r in rows if r.status in ("red", "missing")]


def unsure(measurement) -> list[str]:
    """The rows that ran and are not shown to be inside their quality budget."""
    return [name for name in measurement.rows if measurement.row(name).amber]


def _list(arguments: argparse.Namespace) -> int:
    try:
        torch.device(arguments.device)
    except RuntimeError:
        raise unknown("device", arguments.device, ("cpu", "cuda")) from None
    width = max(map(len, CONTENDERS))
    for name, contender in CONTENDERS.items():
        kind = "same pictures " if contender.lossless else "other pictures"
        why = contender.unavailable(arguments.device)
        print(f"{name:<{width}}  {kind}  {contender.changes}" + (f"  [{why}]" if why else ""))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    checked_device(arguments.device)
    for name, value in fingerprint(arguments.device).items():
        print(f"{name:>15}  {value}")
    print()
    for level, sentence in [*advice(arguments.device), comparable(arguments.device)]:
        print(f"{level:>5}  {sentence}")
    return 0


def comparable(device: str, results: Path | None = None) -> tuple[str, str]:
    """Whether what is measured now may stand beside this machine's newest stored result."""
    try:
        newest = store.newest(results, machine(device))
        stored = store.load(newest).environment
    except UsageError:
        return "note", "no result of this machine is stored yet"
    now = {**fingerprint(device), "threads": stored.get("threads", 1)}
    others = differences(stored, now)
    if not others:
        return "ok", f"the newest result of this machine ({newest.name}) was taken in this environment"
    return "note", (f"figures of the newest result of this machine ({newest.name}) and of a run now do not belong in "
                    f"one table: {'; '.join(others)}")  # fmt: skip


if __name__ == "__main__":
    start.finish(main, STOPPED)
