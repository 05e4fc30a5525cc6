"""The errors a user can cause: one sentence that names the value and what would be accepted."""

import difflib
import errno
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import TextIO


class UsageError(ValueError):
    """A mistake in what was asked for; commands print it without a traceback and exit with 3."""


class NonFiniteError(UsageError):
    """The network or the update produced NaN or infinity; `step` says where."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that does not exist, with the nearest that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(
        f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}"
        if near
        else f"unknown {kind} {name!r}; known: {', '.join(known)}"
    )


def in_one_line(error: Exception) -> str:
    """An exception as one sentence: a user's mistake in its own words, any other with its type."""
    if isinstance(error, UsageError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


EXHAUSTED = {
    errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system cannot be written to", errno.EIO: "a disk or a terminal failed",
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system can open no more files",
    errno.ENOMEM: "memory is used up", errno.EAGAIN: "no more processes may be started (ulimit -u)",
}  # fmt: skip


def lacking(error: OSError) -> UsageError | None:
    """What a machine has run out of, in a sentence; None for any other error, which is a fault of this program."""
    what = EXHAUSTED.get(error.errno or 0)
    return UsageError(f"{what} ({error.filename})" if error.filename else what) if what else None


READER_GONE = 141  # what a shell says of a program that its reader left: 128 + SIGPIPE


def until_the_reader_leaves(work: Callable[[], int]) -> int:
    """The status of a command's work, or READER_GONE where whoever read its output has left, as `| head` does."""
    try:
        status = work()
    except (OSError, SystemExit) as end:  # argparse leaves after --help; and a worker's pipe may break too
        if _reader_gone():
            return READER_GONE
        if isinstance(end, OSError) and (lack := lacking(end)):
            raise lack from None
        raise
    return READER_GONE if _reader_gone() else status


def _reader_gone() -> bool:
    """Whether a reader of the standard output, or of the error stream, has left; then nothing more is written to it."""
    return any([_gone(sys.stdout), _gone(sys.stderr)])  # both are asked


def _gone(stream: TextIO) -> bool:
    """Whether a stream's reader has left. What cannot be written for another reason, as on a full disk, is told."""
    unwritten = None
    try:
        stream.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        unwritten = error
    try:
        output = stream.fileno()
    except (OSError, ValueError):  # not a file: a test's or a notebook's
        return False
    asked = select.poll()
    asked.register(output, 0)
    gone = any(event & select.POLLERR for _, event in asked.poll(0))
    if gone or unwritten:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # the interpreter flushes once more at its end
    if unwritten and not gone:
        raise UsageError(f"what it says cannot be written: {unwritten.strerror}")
    return gone
