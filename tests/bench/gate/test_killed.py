"""A gate that is killed, at any point, leaves no process behind, and the next one removes its worktree."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from bench.gate import trees
from tests.bench.gate.test_end_to_end import MODEL, commit, gate, repository
from tests.bench.gate.test_trees import git, worktrees
from tests.patience import PATIENCE_S

__all__ = ["repository"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")]
MARK = "DDPM_BENCH_TEST_MARK"
# so slow that no verdict comes before the kill: two processes of one commit do differ, by some percent, and a rule
# that tolerates nothing says so within seconds
SLEEPY = MODEL.replace("    def forward(self, x):\n", "    def forward(self, x):\n        time.sleep(1.0)\n")
SLEEPY = SLEEPY.replace("import torch\n", "import time\n\nimport torch\n", 1)


def children(process: subprocess.Popen) -> list[int]:
    """The workers of a gate."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def gone(pids: list[int], within_s: float = PATIENCE_S) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if all("State:\tZ" in (status := _read(pid, "status")) or not status for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _read(pid: int, name: str) -> str:
    """A file of a process; '' where the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def started(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    """A gate that is timing: its thresholds leave nothing to be decided before the budget is spent."""
    never = folder.parent / "never.toml"
    never.write_text('[default]\ntolerated = 0.0\nmust_detect = 1e-9\nfloor_us = 0\nreason = "to go on"\n')
    process = gate(folder, "--workers", "1", "--budget", "60", "--thresholds", str(never), against="HEAD")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        workers = [pid for pid in children(process) if "worker_script" in _read(pid, "cmdline")]
        if len(workers) == 2:
            time.sleep(5.0)  # they import and build meanwhile
            return process, workers
        time.sleep(0.2)
    raise AssertionError(process.communicate())


def test_killed_in_the_middle_nothing_is_left_behind(repository) -> None:
    commit(repository, SLEEPY)
    # the parent, by a signal that nobody can catch: its workers notice, and the next gate clears its worktree
    process, workers = started(repository)
    process.kill()
    process.communicate()
    assert gone(workers)
    assert worktrees(repository) == 2
    # a worker: the run ends with a message and a code that is no pass
    process, workers = started(repository)
    assert worktrees(repository) == 2  # its own; the other is pruned
    os.kill(workers[1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_S)
    found = json.loads((repository.parent / "gate.json").read_text())
    assert process.returncode == 2, err
    assert "was killed by signal 9" in found["headline"]
    assert gone(workers)
    # the terminal closes
    process, workers = started(repository)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.endswith("stopped\n")
    assert gone(workers)
    assert worktrees(repository) == 1


def marked(mark: str) -> list[int]:
    """Every process that was started, through however many others, with this mark in its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5, 3.5, 5.0, 8.0, 12.0])
def test_killed_after_any_time_nothing_is_left_behind(repository, monkeypatch, after_s: float) -> None:
    monkeypatch.setenv(MARK, str(repository))
    commit(repository, MODEL.replace("torch.tanh(layer(x))", "torch.tanh(torch.tanh(layer(x)))"))
    process = gate(repository, "--workers", "2", "--rows", "model,compiled")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after_s)
    process.kill()
    process.communicate()
    until = time.monotonic() + PATIENCE_S
    while (left := marked(str(repository))) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    said: list[str] = []
    with trees.worktree(repository, trees.resolve(repository, "HEAD"), said.append):
        assert worktrees(repository) == 2  # the repository itself and this one
    assert worktrees(repository) == 1
    assert not list((repository / ".git" / trees.ROOM).iterdir())


def wheel(folder: Path, name: str, version: str, **files: str) -> None:
    """A wheel made by hand."""
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}  # fmt: skip
    records = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": records}.items():
            archive.writestr(path, text)


@pytest.fixture
def pinned(repository) -> Path:
    """A repository whose last commit moves a pin; the older version's environment finds this one's torch."""
    wheels = repository.parent / "wheels"
    wheels.mkdir()
    torch_from = "\n".join(p for p in sys.path if p.endswith("site-packages"))
    for version in ("1.0", "2.0"):
        wheel(wheels, "tiny", version, **{"tiny.py": f"VERSION = '{version}'\n", "torch_from.pth": torch_from + "\n"})
    for version in ("1.0", "2.0"):
        (repository / "requirements.txt").write_text(f"--no-index\n--find-links {wheels}\ntiny=={version}\n")
        git(repository, "add", "requirements.txt")
        commit(repository, MODEL.replace("def make():", "def make():\n    import tiny\n")
               if version == "1.0" else MODEL)  # fmt: skip
    return repository


def test_another_pin_gets_an_environment_of_its_own_which_is_kept(pinned) -> None:
    made = []
    for _ in range(2):
        process = gate(pinned, "--workers", "1", "--budget", "5")
        out, err = process.communicate(timeout=PATIENCE_S)
        made.append("making its environment" in err)
        assert process.returncode in (0, 1, 2), out + err  # judged: the base imports what only its environment has
        found = json.loads((pinned.parent / "gate.json").read_text())
        assert found["rows"][0]["pairs"], found["headline"]
    assert made == [True, False]
    (place,) = (pinned / ".git" / trees.ROOM).glob("environment-*")
    assert "1.0" in subprocess.run(
        [place / "bin" / "python", "-c", "import tiny; print(tiny.VERSION)"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_killed_while_the_environment_is_made_nothing_is_left_and_the_next_makes_it_anew(pinned, monkeypatch) -> None:
    monkeypatch.setenv(MARK, str(pinned))
    process = gate(pinned, "--workers", "1", "--budget", "5")
    room = pinned / ".git" / trees.ROOM
    until = time.monotonic() + PATIENCE_S
    while not list(room.glob("environment-*/bin/python")) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    while (left := marked(str(pinned))) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []
    (place,) = room.glob("environment-*")
    assert not (place / "complete").exists()
    process = gate(pinned, "--workers", "1", "--budget", "5")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 1, 2), out + err
    assert (place / "complete").exists()


def test_a_pin_that_cannot_be_had_is_told_in_one_sentence(pinned) -> None:
    (pinned.parent / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()
    process = gate(pinned, "--workers", "1")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert "the base's environment could not be made" in err
    assert "tiny==1.0" in err
    assert "Traceback" not in err
