"""A journal: what is measured and decided, one JSON line each as it comes, so that no stop loses it.

The first line (the head) says what is asked, and in which environment. A line is on the disk before anything else is
done, but for those that come in hundreds while something is timed: these are, at the latest, when the order ends in
which they came (`sync`). So SIGKILL loses nothing, and power loss no more than those. What was cut is dropped when it
is read.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from sampler import strict_json
from sampler.errors import UsageError

try:
    import fcntl
except ImportError:  # a system without it: there two may write at once
    fcntl = None  # type: ignore[assignment]

Event = dict[str, Any]
MANY = ("pair", "segment", "evidence")  # come in hundreds, while something is timed


class Journal:
    """Events kept in memory and, line by line, in a file; one whose head is the same is gone on with.

    path: None keeps them in memory alone. One journal has one writer; a second is refused.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]):
        self.path, self.head = path, strict_json.loads(strict_json.dumps(head))  # as a reader of the file sees it
        self.events: list[Event] = []
        self._before_s, self._start = 0.0, time.monotonic()
        self._file: int | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(self._file):
            os.close(self._file)
            self._file = None
            raise UsageError(f"another process writes {path}; wait for it, or end it")
        found, self.events, whole_bytes = read(path)
        if found != self.head:
            self.events, whole_bytes = [], 0
        self._before_s = max((e.get("at", 0.0) for e in self.events), default=0.0)
        os.ftruncate(self._file, whole_bytes)
        os.lseek(self._file, 0, os.SEEK_END)
        if not whole_bytes:
            self._write({"head": self.head})
            _sync_folder(path.parent)

    @property
    def spent_s(self) -> float:
        """Wall seconds, those before an interruption included."""
        return self._before_s + time.monotonic() - self._start

    def add(self, event: Event) -> Event:
        """Keep an event, with the second at which it came."""
        event = {**event, "at": round(self.spent_s, 3)}
        self.events.append(event)
        self._write(event, at_once=event["event"] not in MANY)
        return event

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a file system that knows no such thing
                os.fsync(self._file)

    def of(self, kind: str) -> list[Event]:
        return [e for e in self.events if e["event"] == kind]

    def _write(self, line: dict[str, Any], at_once: bool = True) -> None:
        if self._file is None:
            return
        left = memoryview(strict_json.compact(line).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            raise UsageError(f"the journal {self.path} cannot be written: {error.strerror}") from None
        if at_once:
            self.sync()

    def close(self, finished: bool) -> None:
        """Close the file; one whose question is answered is not needed any more."""
        if self._file is None or self.path is None:
            return
        if finished:  # while it is still locked: nobody else's is removed
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None


def read(path: Path) -> tuple[dict[str, Any] | None, list[Event], int]:
    """A journal's head and events, and how many of its bytes are whole lines; None where it has not even a head."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")  # the last one was cut, or is empty
    except OSError:
        return None, [], 0
    found: list[dict[str, Any]] = []
    whole_bytes = 0
    for line in lines:
        try:
            entry = strict_json.loads(line)
        except ValueError:
            break
        if not isinstance(entry, dict) or ("head" if not found else "event") not in entry:
            break
        found.append(entry)
        whole_bytes += len(line) + 1
    return (found[0]["head"], found[1:], whole_bytes) if found else (None, [], 0)


def is_written(path: Path) -> bool:
    """Whether a process that lives is writing it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether this process has the file for itself, until it closes it or ends."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """A file that was just made is in its folder after a loss of power too."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
