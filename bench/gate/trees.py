"""Where the other revision is built: a git worktree, in an environment of its own only where the pins differ.

A worktree holds a lock while its gate lives; the kernel drops the lock however the gate ends, so the next one
knows what was left over and removes it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sampler.errors import UsageError

ROOM = "ddpm-bench-gate"  # inside the repository's git directory: no status shows it
Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


def git(repository: Path, *arguments: str) -> str:
    """The output of a git command; a failure is a UsageError in git's own words."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed; the gate needs it to build the other revision") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UsageError(f"git {' '.join(arguments[:2])}: {lines[-1]}")
    return done.stdout.strip()


def top_level(folder: Path) -> Path:
    """The root of the git repository that a folder stands in."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel"))
    except UsageError:
        raise UsageError(f"{folder} is not inside a git repository; the gate compares two revisions of one") from None


def resolve(repository: Path, revision: str) -> str:
    """The full commit of a revision."""
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except UsageError:
        raise UsageError(
            f"unknown revision {revision!r} in {repository}; name a commit, branch or tag (in CI, fetch it first: "
            "a shallow clone holds only one)"
        ) from None


def describe(repository: Path, commit: str = "HEAD") -> str:
    """Short commit and subject; for HEAD, says whether there are uncommitted changes."""
    text = git(repository, "log", "-1", "--format=%h %s", commit)
    changed = commit == "HEAD" and git(repository, "status", "--porcelain", "--", ".", ":!results")
    return text + (" + uncommitted changes" if changed else "")


@contextmanager
def worktree(repository: Path, commit: str, say: Say = _silent) -> Iterator[Path]:
    """The tree of a commit, checked out beside the repository's own and gone afterwards."""
    common = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    room = common / ROOM
    room.mkdir(exist_ok=True)
    for left_over in prune(repository, room):
        say(f"an earlier gate ended early; the worktree that it left is removed: {left_over}")
    place = room / f"{commit[:12]}-{os.getpid()}"
    with _locked(place.with_suffix(".lock")):
        try:
            git(repository, "worktree", "add", "--detach", "--force", str(place), commit)
            yield place
        finally:
            _remove(repository, place)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a new lock file; made again where another gate took it for a left-over before it was locked."""
    while True:
        with open(path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                yield
                return


def prune(repository: Path, room: Path) -> list[Path]:
    """Remove the worktrees whose gate is gone; returns them."""
    gone = []
    for lock_path in room.glob("*.lock"):
        with open(lock_path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its gate is alive
            gone.append(lock_path.with_suffix(""))
            _remove(repository, gone[-1])
    return gone


def _remove(repository: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    git(repository, "worktree", "prune")
    place.with_suffix(".lock").unlink(missing_ok=True)


def pins(tree: Path) -> dict[str, str]:
    """What a tree pins exactly, from constraints.txt, requirements*.txt and pyproject.toml: {package: version}."""
    lines: list[str] = []
    for path in [tree / "constraints.txt", *sorted(tree.glob("requirements*.txt"))]:
        if path.exists():
            lines += path.read_text().splitlines()
    if (tree / "pyproject.toml").exists():
        project = tomllib.loads((tree / "pyproject.toml").read_text()).get("project", {})
        lines += project.get("dependencies", [])
    found = (re.match(r"\s*([A-Za-z0-9_.-]+)\s*(?:\[.*\])?\s*==\s*([^\s;#]+)", line) for line in lines)
    return {m.group(1).lower().replace("_", "-"): m.group(2) for m in found if m}


def differing_pins(one: Path, other: Path) -> dict[str, tuple[str, str]]:
    """Packages that both trees pin, to different versions."""
    mine, theirs = pins(one), pins(other)
    return {name: (mine[name], theirs[name]) for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}


def interpreter(repository: Path, this: Path, base: Path, say: Say = _silent) -> str:
    """The python for the base: this one, or one of its own where the pins differ (kept for the next time)."""
    differing = differing_pins(this, base)
    if not differing:
        return sys.executable
    common = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    key = hashlib.sha256(repr((sorted(pins(base).items()), sys.version)).encode()).hexdigest()[:12]
    place = common / ROOM / f"environment-{key}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        name, (mine, theirs) = sorted(differing.items())[0]
        say(f"the base pins {name} {theirs}, not {mine}: making its environment (minutes, once)")
        shutil.rmtree(place, ignore_errors=True)
        constraints = ["-c", "constraints.txt"] if (base / "constraints.txt").exists() else []
        wanted = [part for path in sorted(base.glob("requirements*.txt")) for part in ("-r", path.name)]
        if (base / "pyproject.toml").exists():
            wanted.append(".")
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(python), "-m", "pip", "install", "--quiet", *constraints, *wanted],
        ):
            code, complaints = _watched(command, base)
            if code:
                last = (complaints.strip().splitlines() or ["no message"])[-1]
                raise UsageError(f"the base's environment could not be made ({' '.join(command[1:4])} …): {last}")
        (place / "complete").touch()
    return str(python)


# Runs a command and ends it, with all that it has started, once standard input ends: when whoever asked is gone.
WATCHED = """
import os, signal, subprocess, sys, threading
def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
os._exit(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL))
"""


def _watched(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """A command's exit code and what it wrote to standard error; it does not outlive this process."""
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(
            [sys.executable, "-c", WATCHED, *command], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=complaints, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                process.wait()
            except BaseException:
                assert process.stdin is not None
                process.stdin.close()  # which ends it
                raise
        complaints.seek(0)
        return process.returncode, complaints.read().decode(errors="replace")
