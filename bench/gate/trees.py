"""Where the other revision stands: a git worktree, gone afterwards.

A worktree holds a lock while its gate lives; the kernel drops the lock however the gate ends, so the next one
knows what was left over and removes it.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sampler.errors import UsageError

ROOM = "ddpm-bench-gate"  # inside the repository's git directory: no status shows it
# what git tells its hooks; a checkout that heeded it would write over the index of the commit in the making
OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
Say = Callable[[str], None]


def silent(text: str) -> None:
    pass


def git(repository: Path, *arguments: str) -> str:
    """The output of a git command; a failure is a UsageError in git's own words.

    A repository that another user owns is read too: what it holds is about to run.
    """
    environ = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}
    try:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
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


def room_of(repository: Path) -> Path:
    """The gate's own folder in a repository's git directory."""
    room = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir")) / ROOM
    try:
        room.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"the gate checks the other revision out in {room}, which cannot be made ({error.strerror}); "
                         "run it in a clone of your own") from None  # fmt: skip
    if not os.access(room, os.W_OK | os.X_OK):
        raise UsageError(f"the gate checks the other revision out in {room}, which cannot be written to; "
                         "run it in a clone of your own")  # fmt: skip
    return room


@contextmanager
def worktree(repository: Path, commit: str, say: Say = silent) -> Iterator[Path]:
    """The tree of a commit, checked out beside the repository's own and gone afterwards."""
    room = room_of(repository)
    for left_over in prune(repository, room):
        say(f"an earlier gate ended early; the worktree that it left is removed: {left_over}")
    place = room / f"{commit[:12]}-{os.getpid()}"
    with locked(place.with_suffix(".lock")):
        try:
            git(repository, "worktree", "add", "--detach", "--force", str(place), commit)
            yield place
        finally:
            _remove(repository, place)


@contextmanager
def locked(path: Path) -> Iterator[None]:
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
        try:
            lock = open(lock_path)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            continue  # its gate has just ended
        with lock:
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
