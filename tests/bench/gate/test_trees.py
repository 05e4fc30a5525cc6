"""Worktrees: made, removed, and pruned when whoever made them is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gate import base_environment, trees
from sampler.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "file.txt").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "First")
    (folder / "file.txt").write_text("two")
    git(folder, "commit", "-qam", "Second")
    return folder


def worktrees(repository: Path) -> int:
    return git(repository, "worktree", "list", "--porcelain").count("worktree ")


def test_a_worktree_holds_the_other_revision_and_is_gone_afterwards(repository) -> None:
    (repository / "file.txt").write_text("uncommitted")
    with trees.worktree(repository, trees.resolve(repository, "HEAD~1")) as tree:
        assert (tree / "file.txt").read_text() == "one"
        assert git(repository, "status", "--porcelain") == "M file.txt"
    assert not tree.exists()
    assert worktrees(repository) == 1
    assert (repository / "file.txt").read_text() == "uncommitted"


def test_in_a_commit_hook_the_commit_in_the_making_is_left_alone(repository, monkeypatch) -> None:
    (repository / "new.txt").write_text("staged")
    git(repository, "add", "new.txt")
    index = repository / ".git" / "index"
    before = index.read_bytes()
    with monkeypatch.context() as hook:
        hook.setenv("GIT_INDEX_FILE", str(index))
        hook.setenv("GIT_DIR", str(repository / ".git"))
        with trees.worktree(repository, trees.resolve(repository, "HEAD~1")) as tree:
            assert (tree / "file.txt").read_text() == "one"
    assert index.read_bytes() == before
    assert git(repository, "diff", "--cached", "--name-only") == "new.txt"


def test_it_is_gone_after_an_error_too(repository) -> None:
    with pytest.raises(KeyboardInterrupt), trees.worktree(repository, trees.resolve(repository, "main")) as tree:
        raise KeyboardInterrupt
    assert not tree.exists()
    assert worktrees(repository) == 1


HOLDS = """
import sys, time
from pathlib import Path
from bench.gate import base_environment, trees
with trees.worktree(Path(sys.argv[1]), sys.argv[2]) as tree:
    print(tree, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_gate_left_is_pruned_and_what_a_living_one_uses_is_not(repository) -> None:
    commit = trees.resolve(repository, "HEAD")
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDS, str(repository), commit], cwd=ROOT, stdout=subprocess.PIPE,
                         text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(2)
    ]  # fmt: skip
    try:
        places = [Path(holder.stdout.readline().strip()) for holder in holders]
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert places[0].exists()
        with trees.worktree(repository, commit) as mine:
            assert mine.exists()
            assert not places[0].exists()
            assert places[1].exists()
        assert places[1].exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            holder.stdout.close()
    time.sleep(0.05)
    assert trees.prune(repository, places[1].parent) == [places[1]]
    assert worktrees(repository) == 1


def test_a_revision_that_does_not_exist_and_a_folder_without_git(repository, tmp_path) -> None:
    with pytest.raises(UsageError, match="unknown revision 'nonsense'"):
        trees.resolve(repository, "nonsense")
    with pytest.raises(UsageError, match="unknown revision '--help'"):
        trees.resolve(repository, "--help")
    with pytest.raises(UsageError, match="not inside a git repository"):
        trees.top_level(tmp_path)


def test_this_side_says_whether_it_holds_uncommitted_changes(repository) -> None:
    assert trees.describe(repository).endswith("Second")
    (repository / "file.txt").write_text("three")
    assert trees.describe(repository).endswith("Second + uncommitted changes")
    assert trees.describe(repository, trees.resolve(repository, "HEAD~1")).endswith("First")


def test_pins_are_read_wherever_they_are_written(tmp_path) -> None:
    (tmp_path / "constraints.txt").write_text("torch==2.11.0\nNumPy == 2.0 ; python_version > '3'\n# x==1\nfree>=2\n")
    (tmp_path / "requirements-dev.txt").write_text("ruff==0.1\n-r other.txt\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["tri_ton[x]==3.6", "scipy"]\n')
    assert base_environment.pins(tmp_path) == {"torch": "2.11.0", "numpy": "2.0", "ruff": "0.1", "tri-ton": "3.6"}


def test_another_environment_only_where_a_pin_differs(repository, tmp_path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (repository / "constraints.txt").write_text("torch==2.13.0\n")
    (base / "constraints.txt").write_text("torch==2.13.0\nonly-here==1\n")
    assert base_environment.interpreter(repository, repository, base) == sys.executable
    (base / "constraints.txt").write_text("torch==2.12.0\n")
    assert base_environment.differing_pins(repository, base) == {"torch": ("2.13.0", "2.12.0")}
