"""The errors a user can cause: one sentence that names the value and what would be accepted."""

import contextlib
import difflib
import os
import select
import sys
from collections.abc import Callable, Iterable


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


READER_GONE = 141  # what a shell says of a program that its reader left: 128 + SIGPIPE


def until_the_reader_leaves(work: Callable[[], int]) -> int:
    """The status of a command's work, or READER_GONE where whoever read its output has left, as `| head` does."""
    try:
        status = work()
    except BrokenPipeError:  # a worker's pipe may break too, and that is no reader's doing
        if not _reader_gone():
            raise
        return READER_GONE
    return READER_GONE if _reader_gone() else status


def _reader_gone() -> bool:
    """Whether whoever read the standard output has left; then nothing more is written to it."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file: a test's or a notebook's
        return False
    asked = select.poll()
    asked.register(output, 0)
    gone = any(event & select.POLLERR for _, event in asked.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # the interpreter flushes once more at its end
    return gone
