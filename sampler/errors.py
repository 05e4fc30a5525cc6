"""The errors a user can cause: one sentence that names the value and what would be accepted."""

import difflib
from collections.abc import Iterable


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
