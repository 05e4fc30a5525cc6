"""`python -m bench gpu`: what a CUDA device is to show, within the minutes for which one is lent, from a checkout.

Each stage (`bench.gpu_plan`) is a program of its own with a limit; one that fails, or runs over and is interrupted,
keeps what it has, and the next one starts. Everything that was printed is kept in gpu.log beside the results, which lie
at most two folders below --out and are at most eight; exit code 1 if any stage failed.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TextIO

import torch

from bench import environment, store
from bench.gpu_plan import PARTS, Asked, Stage
from sampler import start
from sampler.errors import UsageError, in_one_line
from sampler.files import writable_folder

KILL_AFTER_S = 15.0  # between the polite interruption and the end
START_AND_END_S = KILL_AFTER_S + 10  # of the minutes: imports, and a last stage that must be ended
MOST_FILES = 8


def run_stages(
    plan: Sequence[Stage],
    log: TextIO,
    clock: Callable[[], float] = time.monotonic,
    after: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run them one after another; what failed, each in a sentence. Time one leaves over goes to the later ones.

    after(): called behind each stage.
    """
    failed, lines, end = [], [], clock() + sum(stage.seconds for stage in plan)
    for i, stage in enumerate(plan):
        seconds = end - clock() - sum(later.seconds for later in plan[i + 1 :])
        _say(log, f"\n=== {i + 1} of {len(plan)}, {stage.name}: at most {max(0.0, seconds):.0f} s ===\n")
        began = clock()
        outcome = _outcome(stage, seconds, log)
        lines.append(f"{stage.name:<34}{clock() - began:>5.0f} s  {outcome or 'fine'}\n")
        if outcome and outcome != NOTHING:
            failed.append(f"{stage.name}: {outcome}")
            if consequence := stage.failed():
                _say(log, f"{consequence}\n")
        after()
    _say(log, "\n=== what came of it ===\n" + "".join(lines))
    return failed


NOTHING = "left out: what it needs was not measured"


def _outcome(stage: Stage, seconds: float, log: TextIO) -> str:
    """How a stage ended, '' where it did what it should."""
    try:
        command = stage.command(seconds)
        if not command:
            return NOTHING
        code, late = _run(command, seconds, log)
    except Exception as error:  # a fault in here must not cost the later stages their minutes
        return in_one_line(error)
    if late:
        return f"interrupted after {seconds:.0f} s"
    return f"exit code {code}" if code else ""


def _run(command: Sequence[str], seconds: float, log: TextIO) -> tuple[int, bool]:
    """(exit code, whether it ran over), all its output on the terminal and in the log."""
    # a group of its own: its workers are ended with it, by it when it is interrupted, by us when it does not listen
    with start.heard(signal.SIGINT):  # with which we end one that runs over, also when Ctrl-C is ignored here
        process = subprocess.Popen(
            command, cwd=environment.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip

    def copy() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            _say(log, line)

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    late = False
    try:
        process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        late = True
        _end(process)
    except KeyboardInterrupt:  # it has a group of its own, and has not heard of it
        _end(process)
        raise
    reader.join(KILL_AFTER_S)
    return process.returncode, late


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _say(log: TextIO, text: str) -> None:
    for stream in (sys.stdout, log):
        stream.write(text)
        stream.flush()


def add(commands) -> None:
    """Add the command and its options to an argparse sub-parser list."""
    command = commands.add_parser(
        "gpu", help="what a CUDA device is to show, within the minutes for which one is lent",
        epilog=f"Where git does not tell the commit, set {environment.COMMIT} to it. Exit codes: 0 all stages fine, "
        "1 one failed, 3 a mistake in what was asked.",
    )  # fmt: skip
    command.add_argument("--part", choices=PARTS, default="first",
                         help="; ".join(f"{name} ({part.minutes:g} minutes): {part.what}"
                                        for name, part in PARTS.items()))  # fmt: skip
    command.add_argument("--minutes", type=float, help="for everything together (default: the part's)")
    command.add_argument("--batch", type=int, help="images at once (default: 16; large: 256)")
    command.add_argument("--rows", metavar="A,B", help="rows of the table (default: the part's)")
    command.add_argument("--out", type=Path, metavar="DIR",
                         help="results folder, used as it is (default: results/local, then <part>)")  # fmt: skip
    command.set_defaults(do=main)


def main(arguments: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        raise UsageError(f"{sys.executable} has no PyTorch that sees a CUDA device")
    part = PARTS[arguments.part]
    minutes = part.minutes if arguments.minutes is None else arguments.minutes
    if not minutes > 0:
        raise UsageError(f"minutes = {minutes:g}; it must be positive")
    usual = store.RESULTS if arguments.part == "first" else store.RESULTS / arguments.part
    within = max(0.5 * minutes, minutes - START_AND_END_S / 60)
    asked = Asked(
        within,
        (arguments.out or usual).resolve(),
        environment.machine("cuda"),
        arguments.batch or part.batch,
        arguments.rows.split(",") if arguments.rows else list(part.rows),
    )
    folder = writable_folder(asked.out / asked.machine)
    before = set(_files(folder))
    with (folder / "gpu.log").open("w", encoding="utf-8") as log:
        head, dirty = environment.commit()
        _say(log, f"{environment.COMMIT if head == 'unknown' else 'commit'}: {head}{' (dirty)' * dirty}; part "
             f"{arguments.part!r}, at most {minutes:g} minutes: {part.what}\nresults: {folder}\n")  # fmt: skip
        plan = part.stages(asked)

        def thin_out() -> None:
            for path in superfluous({*_files(folder)} - before | {folder / "gpu.log"}):
                path.unlink()

        failed = run_stages(plan, log, after=thin_out)  # behind each: what ends it all leaves no more than may be kept
        for sentence in failed:
            _say(log, f"FAILED {sentence}\n")
        made = {*_files(folder)} - before | {folder / "gpu.log"}
        _say(log, "\nfiles (`python -m bench report` makes from them what is not here):\n"
             + "".join(f"{path}\n" for path in sorted(made)) + (f"\n{part.then}\n" if part.then else ""))  # fmt: skip
    return 1 if failed else 0


DERIVED = (".png", ".csv")  # what is left out first stands first
KEPT = ("report", "rows", "update")
FIGURES = "figures"  # the folder of those that a report is drawn with: first of all


def superfluous(made: Collection[Path]) -> list[Path]:
    """Of the files that were made, those beyond the most: figures and tables, which what is stored gives again."""
    derived = [p for p in made if p.suffix in DERIVED and (p.stem not in KEPT or p.parent.name == FIGURES)]
    derived.sort(key=lambda path: (path.parent.name != FIGURES, DERIVED.index(path.suffix), path.name))
    return derived[: max(0, len(made) - MOST_FILES)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
