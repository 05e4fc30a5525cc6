"""`python -m bench gate`: its options, what it writes and its exit codes."""

import argparse
import random
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import environment
from bench.gate import base_environment, calibrate, certificate, outputs, thresholds, trees
from bench.gate.session import FRESH_WORKERS, WORKERS, Job, run_gate
from bench.gate.verdict import GateResult
from bench.gate.worker import Side
from bench.progress import Progress
from bench.sequential_test import Rule
from bench.store import write_atomically
from sampler import strict_json
from sampler.errors import UsageError, lacking, unknown
from sampler.files import writable_folder
from sampler.models import checked_device

BROKEN_EXIT = 3
EXIT_CODES = (
    "Exit codes: 0 nothing regressed; 1 a regression (with --ratchet also an unexplained improvement); 2 could not "
    "be judged (a MISSING row or a CONTAMINATED run always, UNSURE under --strict); 3 a mistake in what was asked, or "
    "an environment that could not be made, or a fault of the gate itself; 130 interrupted."
)


def add_parser(commands) -> None:
    gate = commands.add_parser(
        "gate", help="judge this tree against another revision: time, memory, pictures", epilog=EXIT_CODES,
        description="Build another revision in a git worktree, time both in alternating slices on the same core, and "
        "say for each row PASS, FAIL, UNSURE or MISSING.",
    )  # fmt: skip
    what = gate.add_mutually_exclusive_group(required=True)
    what.add_argument("--against", metavar="REV", help="the revision to compare with: a commit, branch or tag")
    what.add_argument("--baseline", type=Path, metavar="FILE", help="a stored result of this kind of machine instead")
    gate.add_argument(
        "--model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="judge the model of the git repository you stand in: what the factory returns is called",
    )
    gate.add_argument("--shape", metavar="C,H,W", help="with --model: one sample, where the factory gives no inputs")
    gate.add_argument("--rows", metavar="A,B", help="only these rows (with --model: model, compiled; default: model)")
    gate.add_argument("--batch", type=int, default=4, help="images at once (%(default)s)")
    gate.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (%(default)s)")
    gate.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    gate.add_argument(
        "--budget",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="seconds of timing, spread over the rows that are still undecided (%(default)s)",
    )
    gate.add_argument("--workers", type=int, default=WORKERS, help="processes a side (%(default)s)")
    gate.add_argument("--seed", type=int, help="of the order, the cores and the noise (default: drawn, and printed)")
    gate.add_argument("--strict", action="store_true", help="UNSURE is exit 2")
    gate.add_argument("--ratchet", action="store_true", help="an unexplained improvement is exit 1")
    gate.add_argument("--thresholds", type=Path, metavar="TOML", help="a thresholds file of your own")
    gate.add_argument("--base-python", metavar="PATH", help="the base's interpreter, where it needs another one")
    gate.add_argument("--plant", help=argparse.SUPPRESS)
    gate.add_argument("--markdown", type=Path, metavar="FILE", help="write a summary fit for a pull request")
    gate.add_argument("--json", type=Path, metavar="FILE", help="write every pair and verdict")
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML for a CI system")
    gate.set_defaults(do=run)  # fmt: skip


def parsed(argv: list[str]) -> argparse.Namespace:
    """The gate's options from its own words alone, for whoever runs it from elsewhere."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["gate", *argv])


def add_calibrate_parser(commands) -> None:
    command = commands.add_parser("calibrate", help="measure the gate's own false alarms and power on this machine")
    command.add_argument(
        "--conditions", default="quiet,one burner,two burners,bursts", metavar="A,B",
        help="what disturbs the machine meanwhile; 'shared': what its other users do (%(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--launches", type=int, default=calibrate.LAUNCHES, metavar="N", help="of fresh processes (%(default)s)"
    )
    command.add_argument("--minutes", type=float, default=60.0, help="stop after so long; it can go on later (60)")
    command.add_argument(
        "--beside", type=int, default=0, metavar="N",
        help="in N launches also judge by --benchmark-compare-fail=mean:5%%, to compare the two (%(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--state", type=Path, metavar="FILE",
        help="where launches are kept (default: results/local/<machine>/gate-calibration.jsonl)",
    )  # fmt: skip
    command.set_defaults(do=run_calibrate)


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Add launches to the calibration, then write the certificate from all there are."""
    conditions = arguments.conditions.split(",")
    for condition in conditions:
        if condition not in calibrate.PLAN:
            raise unknown("condition", condition, calibrate.PLAN)
    if arguments.launches < 1 or not arguments.minutes > 0 or arguments.beside < 0:
        raise UsageError("--launches and --minutes must be positive, --beside not negative")
    state = arguments.state or certificate.path(environment.machine("cpu")).with_name("gate-calibration.jsonl")
    writable_folder(state.parent, "--state")
    with Progress() as progress, _ends_in_order():
        calibrate.calibrate(
            state, conditions, arguments.launches, arguments.minutes, arguments.beside, progress.say
        )  # fmt: skip
    written = certificate.write(state)
    print(written[1].read_text())
    print("\n".join(map(str, [state, *written])))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """The gate asked for; a fault of its own is BROKEN_EXIT, for Python's 1 says that something regressed."""
    for path in filter(None, (arguments.markdown, arguments.json, arguments.junit)):  # refused before the work
        writable_folder(path.resolve().parent, "another file")
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file")
    if arguments.baseline:
        from bench.gate import baseline

        judge = baseline.run
    else:
        judge = _against_a_revision
    try:
        code, text = judge(arguments)
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (lack := lacking(error)):
            raise lack from None
        traceback.print_exc()
        return BROKEN_EXIT
    print(text)
    return code


def _against_a_revision(arguments: argparse.Namespace) -> tuple[int, str]:
    if not arguments.budget > 0 or arguments.workers < 1 or arguments.batch < 1 or arguments.threads < 1:
        raise UsageError("--budget, --workers, --batch and --threads must be positive")
    with Progress() as progress, _ends_in_order():
        result = against(arguments, progress.say)
    write(result, arguments)
    return result.exit_code, outputs.terminal(result)


def against(arguments: argparse.Namespace, say) -> GateResult:
    """The strict gate: this tree and a worktree of the other revision."""
    checked_device(arguments.device)
    repository = trees.top_level(Path.cwd()) if arguments.model else _checkout()
    if arguments.base_python and not shutil.which(arguments.base_python):
        raise UsageError(f"--base-python {arguments.base_python} is nothing that can be run")
    commit = trees.resolve(repository, arguments.against)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(31)
    with trees.worktree(repository, commit, say) as tree:
        python = arguments.base_python or base_environment.interpreter(repository, repository, tree, say)
        job = Job(
            Side("the base", tree, python, trees.describe(repository, commit)),
            Side("this tree", repository, sys.executable, trees.describe(repository)),
            _task(arguments, repository), thresholds.load(arguments.thresholds or thresholds.FILE),
            names_in(arguments.rows) or (["model"] if arguments.model else None),
            arguments.budget, arguments.workers, min(arguments.workers, FRESH_WORKERS), seed,
            arguments.strict, arguments.ratchet, environment.fingerprint(arguments.device),
            _command(arguments, commit),
        )  # fmt: skip
        result = run_gate(job, say)
    limits = job.thresholds.default
    design = {"workers": job.workers, "fresh_workers": job.fresh_workers, "tolerated": limits.tolerated,
              "must_detect": limits.must_detect, "missed": Rule.missed, "threads": arguments.threads}  # fmt: skip
    return replace(result, certificate=certificate.sentence(environment.machine(arguments.device), design))


def names_in(text: str | None) -> list[str]:
    """The rows of a list like a,b."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"--rows {text!r} names no row")
    return list(dict.fromkeys(names))


def _checkout(root: Path = environment.ROOT) -> Path:
    """The repository of this house, where it is a checkout and not an installed package."""
    try:
        if trees.top_level(root).resolve() == root.resolve():
            return root
    except UsageError:
        pass
    raise UsageError(
        "this harness is installed here and no git checkout; to judge the model of the repository you stand in, "
        "name it: --model package.module:factory"
    )


def _task(arguments: argparse.Namespace, repository: Path) -> dict:
    shape = None
    folder = Path.cwd().resolve().relative_to(repository.resolve()) if arguments.model else Path()
    if arguments.model and ":" not in arguments.model:
        raise UsageError(f"--model {arguments.model} names no factory; write package.module:factory")
    if arguments.shape:
        try:
            shape = [int(part) for part in arguments.shape.split(",")]
        except ValueError:
            raise UsageError(f"--shape {arguments.shape} is no list of integers like 3,32,32") from None
    return {
        "folder": str(folder), "model": arguments.model, "name": "fashion-mnist", "shape": shape,
        "batch": arguments.batch,
        "device": arguments.device, "threads": arguments.threads, "steps": 1000, "guidance": 3.0,
        "plant": arguments.plant,
    }  # fmt: skip


def _command(arguments: argparse.Namespace, commit: str) -> str:
    """The command that repeats this run, with the revision by its name that does not move."""
    words = [f"python -m bench gate --against {commit[:12]}"]
    unasked = parsed(["--against", commit])
    for name in ("model", "shape", "rows", "batch", "device", "threads", "workers", "thresholds", "base_python"):
        if (value := getattr(arguments, name)) != getattr(unasked, name):
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join([*words, f"--budget {arguments.budget:g}"])


def write(result: GateResult, arguments: argparse.Namespace) -> None:
    """The files asked for, and what a CI system reads by itself."""
    if arguments.markdown:
        write_atomically(arguments.markdown, outputs.markdown(result))
    if arguments.json:
        write_atomically(arguments.json, strict_json.dumps(result.json()))
    if arguments.junit:
        write_atomically(arguments.junit, outputs.junit(result))
    outputs.on_github(outputs.annotations(result), outputs.markdown(result))


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Let a termination or a closed terminal end the run as Ctrl-C does: workers stopped, worktree removed."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # nohup's wish
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
