"""What runs the other revision: this interpreter, or one in an environment of its own where the two trees' pins differ.

Such an environment is kept in the repository's git directory; its installer does not outlive the gate.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from bench.gate.trees import Say, locked, room_of, silent
from sampler.errors import UsageError


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


def interpreter(repository: Path, this: Path, base: Path, say: Say = silent) -> str:
    """The python for the base: this one, or one of its own where the pins differ (kept for the next time)."""
    differing = differing_pins(this, base)
    if not differing:
        return sys.executable
    key = hashlib.sha256(repr((sorted(pins(base).items()), sys.version)).encode()).hexdigest()[:12]
    place = room_of(repository) / f"environment-{key}"
    with locked(place.with_name(f"making-{key}")):  # of two gates at once, the second waits and finds it made
        if not (place / "complete").exists():
            name, (mine, theirs) = sorted(differing.items())[0]
            say(f"the base pins {name} {theirs}, not {mine}: making its environment (minutes, once)")
            _make_environment(place, base)
    return str(place / "bin" / "python")


def _make_environment(place: Path, tree: Path) -> None:
    """A virtual environment of what a tree asks for; marked complete when all of it is there."""
    shutil.rmtree(place, ignore_errors=True)
    constraints = ["-c", "constraints.txt"] if (tree / "constraints.txt").exists() else []
    wanted = [part for path in sorted(tree.glob("requirements*.txt")) for part in ("-r", path.name)]
    if (tree / "pyproject.toml").exists():
        wanted.append(".")
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *constraints, *wanted],
    ):
        code, complaints = _watched(command, tree)
        if code:
            last = (complaints.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"the base's environment could not be made ({' '.join(command[1:4])} …): {last}")
    (place / "complete").touch()


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
