"""`python -m bench gpu`: a CUDA device's tests, tables and benchmarks within a time budget, from a checkout.

What does not fit nine minutes is a part of its own (`PARTS`). Each stage is a program of its own with a limit; one
that runs over is interrupted, keeps what it has, and the next one starts. Everything that was printed is kept in
gpu.log beside the results; exit code 1 if any stage failed.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

from bench import environment, store
from bench.update.figure import fused_row
from sampler.errors import UsageError
from sampler.files import writable_folder

KILL_AFTER_S = 15.0  # between the polite interruption and the end
MOST_FILES = 8
# beside the reference: each is looked at alone and built three times, and no more than these fit the minutes
ROWS = ("textbook", "batched-cfg", "fused-drawn", "cuda-graph", "fused-graph", "all-lossless-cuda",
        "all-equal-steps-cuda")  # fmt: skip
OTHERS = ("textbook", "channels-last", "compiled-update", "fused-update", "fused-guided", "fused-fed", "compiled",
          "cuda-graph-5", "compiled-graph")  # fmt: skip
FORMATS = ("textbook", "tf32", "autocast-bf16", "autocast-fp16", "cast-bf16", "cast-fp16", "limited-guidance",
           "strided", "ddim", "all-together-cuda")  # fmt: skip
LARGE = ("textbook", "batched-cfg", "all-lossless-cuda", "all-equal-steps-cuda")
LARGE_MODEL = ("--model", "cifar10-size")


@dataclass(frozen=True)
class Stage:
    """A program and how long it may take. command(seconds): its arguments, told how long it has."""

    name: str
    seconds: float
    command: Callable[[float], Sequence[str]]


PYTHON = (sys.executable, "-u", "-m")


def stages(minutes: float, out: Path, batch: int, rows: Sequence[str] = ROWS) -> list[Stage]:
    """What is run in so many minutes: tests first, for a fast kernel that is wrong has no figure."""
    whole_s = 60 * minutes

    def update(seconds: float) -> list[str]:
        return [*PYTHON, "bench", "update", "--device", "cuda", "--budget", f"{0.25 * seconds:.0f}", *_step(out),
                "--out", str(out)]  # fmt: skip

    tests = [*PYTHON, "pytest", "tests", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    return [
        Stage("the tests that need the device", 0.3 * whole_s, lambda seconds: tests),
        _table(0.54 * whole_s, out, batch, rows),
        Stage("the update alone", 0.16 * whole_s, update),
    ]


def table_and_memory(minutes: float, out: Path, batch: int, rows: Sequence[str], *model: str) -> list[Stage]:
    """A table of rows, and what each holds in memory."""
    memory = [*PYTHON, "bench", "memory", "--device", "cuda", "--rows", ",".join(rows), "--batch", str(batch), *model,
              "--out", str(out)]  # fmt: skip
    return [
        _table(0.75 * 60 * minutes, out, batch, rows, *model),
        Stage("the memory report", 0.25 * 60 * minutes, lambda seconds: memory),
    ]


def _table(seconds: float, out: Path, batch: int, rows: Sequence[str], *model: str) -> Stage:
    def table(seconds: float) -> list[str]:
        budget_s = 0.3 * seconds  # the rest goes into looking at each row, compiling and building
        return [*PYTHON, "bench", "run", "--device", "cuda", "--preset", "gpu", "--rows", ",".join(rows),
                "--batch", str(batch), *model, "--budget", f"{budget_s:.0f}", "--out", str(out)]  # fmt: skip

    return Stage("the table", seconds, table)


@dataclass(frozen=True)
class Part:
    """What one call of the command does. stages(minutes, out, batch, rows): with these for a default."""

    what: str
    batch: int
    rows: tuple[str, ...]
    stages: Callable[[float, Path, int, Sequence[str]], list[Stage]]


PARTS = {
    "first": Part("the tests, the rows that lead to the fastest lossless one, the update alone", 16, ROWS, stages),
    "others": Part("the rows in between, and their memory", 16, OTHERS, table_and_memory),
    "formats": Part("the rows that draw other pictures, and their memory", 16, FORMATS, table_and_memory),
    "large": Part("a network of 37.8 M parameters, and its memory", 512, LARGE,
                  lambda *given: table_and_memory(*given, *LARGE_MODEL)),
}  # fmt: skip


def _step(out: Path) -> list[str]:
    """The step of the table that was just measured, or none where it did not come that far."""
    try:
        newest = store.newest(out)
        if store.load(newest).row(fused_row("cuda")).speedup is not None:
            return ["--step-from", str(newest)]
    except UsageError as error:
        print(error)
    return ["--step-budget", "0"]


def run_stages(plan: Sequence[Stage], log: TextIO, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """Run them one after another; what failed, each in a sentence. Time one leaves over goes to the later ones."""
    failed, end = [], clock() + sum(stage.seconds for stage in plan)
    for i, stage in enumerate(plan):
        seconds = end - clock() - sum(later.seconds for later in plan[i + 1 :])
        _say(log, f"\n=== {stage.name}: at most {seconds:.0f} s ===\n")
        command = stage.command(seconds)
        began = clock()
        code, late = _run(command, seconds, log)
        _say(log, f"=== {stage.name}: {clock() - began:.0f} s, exit code {code} ===\n")
        if late:
            failed.append(f"{stage.name}: interrupted after {seconds:.0f} s")
        elif code:
            failed.append(f"{stage.name}: exit code {code}")
    return failed


def _run(command: Sequence[str], seconds: float, log: TextIO) -> tuple[int, bool]:
    """(exit code, whether it ran over), all its output on the terminal and in the log."""
    # a group of its own: its workers are ended with it, by it when it is interrupted, by us when it does not listen
    process = subprocess.Popen(
        command, cwd=environment.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
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
        process.send_signal(signal.SIGINT)
        try:
            process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reader.join(KILL_AFTER_S)
    return process.returncode, late


def _say(log: TextIO, text: str) -> None:
    for stream in (sys.stdout, log):
        stream.write(text)
        stream.flush()


def add(commands) -> None:
    """Add the command and its options to an argparse sub-parser list."""
    command = commands.add_parser("gpu", help="the GPU's tests, table and update benchmark, within a time budget")
    command.add_argument("--minutes", type=float, default=9.0, help="for everything together (default: %(default)s)")
    command.add_argument("--part", choices=PARTS, default="first",
                         help="; ".join(f"{name}: {part.what}" for name, part in PARTS.items()))  # fmt: skip
    command.add_argument("--batch", type=int, help="images at once (default: 16; large: 512)")
    command.add_argument("--rows", metavar="A,B", help="rows of the table (default: the part's)")
    command.add_argument("--out", type=Path, default=store.RESULTS, metavar="DIR", help="results folder (%(default)s)")
    command.set_defaults(do=main)


def main(arguments: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        raise UsageError(f"{sys.executable} has no PyTorch that sees a CUDA device")
    if not arguments.minutes > 0:
        raise UsageError(f"minutes = {arguments.minutes:g}; it must be positive")
    part = PARTS[arguments.part]
    out = arguments.out.resolve() if part is PARTS["first"] else arguments.out.resolve() / arguments.part
    folder = writable_folder(out / environment.machine("cuda"))
    before = set(_files(folder))
    with (folder / "gpu.log").open("w", encoding="utf-8") as log:
        for name, value in environment.fingerprint("cuda").items():
            _say(log, f"{name:>15}  {value}\n")
        rows = arguments.rows.split(",") if arguments.rows else part.rows
        failed = run_stages(part.stages(arguments.minutes, out, arguments.batch or part.batch, rows), log)
        for sentence in failed:
            _say(log, f"FAILED {sentence}\n")
        made = {*_files(folder)} - before | {folder / "gpu.log"}
        surplus = superfluous(made)
        for path in surplus:
            path.unlink()
            _say(log, f"left out, made again by `python -m bench report`: {path}\n")
        for path in sorted(made - {*surplus}):
            _say(log, f"{path}\n")
    return 1 if failed else 0


DERIVED = (".svg", ".png", ".csv")  # what is left out first stands first
KEPT = ("report", "rows", "update")


def superfluous(made: Collection[Path]) -> list[Path]:
    """Of the files that were made, those beyond the most: figures and tables, which what is stored gives again."""
    derived = sorted((path for path in made if path.suffix in DERIVED and path.stem not in KEPT), reverse=True)
    return sorted(derived, key=lambda path: DERIVED.index(path.suffix))[: max(0, len(made) - MOST_FILES)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
