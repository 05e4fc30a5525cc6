"""`python -m bench tune`: what should I turn on, for this model, on this machine, within these budgets?"""

import argparse
import gzip
import sys
from dataclasses import replace
from pathlib import Path

from bench import environment, store
from bench.options import OPTIONS, OUT
from bench.progress import Progress
from bench.store import write_atomically
from bench.tune import answer, asked, exhaustive, outputs
from bench.tune.asked import LOSSLESS, MODES, STATED, Asked
from bench.tune.journal import Journal
from bench.tune.tuner import tune
from bench.workload import workload
from sampler import strict_json
from sampler.errors import UsageError
from sampler.files import writable_folder

FROM_THE_JOB = ("device", "threads", "steps", "model", "guidance")
SCRATCH = store.SCRATCH / "tune"


def add_to(commands) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "tune", help="what should I turn on? searches the product of the seams for what is fastest within budgets of "
                     "quality, memory and time; resumable")  # fmt: skip
    for name in FROM_THE_JOB:
        parser.add_argument("--" + name, **OPTIONS[name])
    parser.add_argument("--batch", default="4", metavar="N|MODE",
                        help=f"images at once, or {', '.join(MODES)} (default: 4)")  # fmt: skip
    parser.add_argument("--quality", default=LOSSLESS, metavar="BUDGET",
                        help=f"what may be lost: {LOSSLESS} (nothing beyond rounding), a share such as 2%% (of kernel "
                             f"distance, label accuracy and diversity), or {', '.join(STATED)}: the budgets of the "
                             "shipped rows (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="at most, such as 8GiB: live tensors on a CPU, what is held on CUDA (default: any)",
    )
    parser.add_argument("--images", type=int, metavar="N", help="how many are wanted: then the first call counts too, "
                                                                "with the compilers' caches empty")  # fmt: skip
    parser.add_argument("--budget", default="10m", metavar="TIME", help="wall time for all of it (default: 10m); with "
                        "--exhaustive, of the timing alone: inspecting and building come before it")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the race's order and noise (default: 0)")
    parser.add_argument("--contenders", default="", metavar="MODULE", help="further rows to race: the CONTENDERS of a "
                                                                           "module")  # fmt: skip
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="instead measure every combination, once: what --check holds the answers against",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="instead hold the stored answers of five seeds against what --exhaustive measured",
    )
    parser.add_argument("--out", **OUT)
    parser.set_defaults(do=run)


def run(arguments: argparse.Namespace) -> int:
    question = asked_of(arguments)
    if (arguments.exhaustive or arguments.check) and (question.batch or question.memory_bytes or question.images):
        raise UsageError("--exhaustive and --check take a batch of a number, and neither --memory nor --images: every "
                         "combination is measured at one batch, by the time of its steps")  # fmt: skip
    machine = environment.machine(question.workload.device)
    results = arguments.out or store.of_model(question.workload.model)
    folder = writable_folder(results / machine / "tune")
    if arguments.exhaustive or arguments.check:
        path = exhaustive.path_of(question, results, machine)
        return _check(question, folder, path) if arguments.check else _exhaust(question, results, path)
    journal = Journal(SCRATCH / f"{question.name}.jsonl", head(question))
    if journal.events:
        print(f"going on after {journal.spent_s:.0f} s of a search that was broken off", file=sys.stderr)
    with Progress() as progress:
        try:
            tuning = tune(question, results, journal, progress.say, "python -m bench " + " ".join(sys.argv[1:]))
            text = answer.terminal(tuning)
            written = [] if tuning.interrupted else outputs.write(tuning, folder, question.name)
        except BaseException:
            journal.close(finished=False)
            raise
    journal.close(finished=bool(written))  # not before the answer is kept
    print(text)
    if tuning.interrupted:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    print("\n" + "\n".join(map(str, written)))
    return 0


def _exhaust(question: Asked, results: Path, path: Path) -> int:
    """Measure every combination and keep it."""
    command = "python -m bench " + " ".join(sys.argv[1:])
    with Progress() as progress:
        everything = exhaustive.measure_all(question, results, progress.say, command)
    text = strict_json.compact(everything.json(), "event")
    write_atomically(path, gzip.compress(text.encode(), mtime=0))  # five megabytes of text
    print(f"{len(everything.rows) - 1} combinations in {everything.took_s:.0f} s; {path}")
    return 130 if everything.interrupted else 0


def _check(question: Asked, folder: Path, path: Path) -> int:
    """Hold the answers of five seeds against every combination."""
    everything = exhaustive.stored(path)
    found = exhaustive.check(everything, exhaustive.answers(question, folder))
    text = exhaustive.table(found, everything)
    write_atomically(path.with_name(path.name.removesuffix("-exhaustive.json.gz") + "-check.md"), text + "\n")
    print(text)
    return 0 if all(one.passes for one in found) and exhaustive.agree(found) else 1


def asked_of(arguments: argparse.Namespace) -> Asked:
    """The question that the options ask."""
    batch, mode = asked.batch_of(arguments.batch)
    given = {name: getattr(arguments, name) for name in FROM_THE_JOB}
    job = workload("quick", batch=batch, seed=arguments.seed, **given)
    memory = None if arguments.memory is None else asked.bytes_of(arguments.memory)
    if mode == "max" and memory is None and job.device == "cpu":
        raise UsageError("--batch max on a CPU needs a --memory budget: all of its memory is no batch to wait for")
    return Asked(job, arguments.quality, memory, arguments.images, mode, asked.seconds_of(arguments.budget),
                 arguments.contenders)  # fmt: skip


def head(question: Asked) -> dict:
    """What a journal must agree in, to be gone on with: the question, its time apart, and the environment."""
    found = environment.fingerprint(question.workload.device)
    found.pop("load_1min")
    return {"asked": replace(question, budget_s=1.0).json(), "environment": found}
