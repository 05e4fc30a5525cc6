"""The journal: everything that was measured and decided on the way, one JSON line each, so that a stop loses nothing.

Every decision is a function of what is asked and of these events in their order: the same journal, the same answer.
"""

import time
from pathlib import Path
from typing import Any

from bench.crew import Event
from sampler import strict_json
from sampler.errors import UsageError


class Journal:
    """Events kept in memory and, line by line, in a file; one that answers the same question is gone on with."""

    def __init__(self, path: Path | None, head: dict[str, Any]):
        self.path, self.head = path, strict_json.loads(strict_json.dumps(head))  # as a reader of the file sees it
        self.events: list[Event] = []
        self._before_s, self._start = 0.0, time.monotonic()
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.events = self._kept(path)
        self._before_s = max((e.get("at", 0.0) for e in self.events), default=0.0)
        self._file = path.open("w", encoding="utf-8")
        for line in ({"head": self.head}, *self.events):
            self._write(line)

    def _kept(self, path: Path) -> list[Event]:
        """The events of a journal that was broken off, if it answers the same question in the same environment."""
        try:
            first, *lines = path.read_text(encoding="utf-8").splitlines()
            if strict_json.loads(first)["head"] != self.head:
                return []
        except (OSError, ValueError, KeyError, TypeError):
            return []
        found = []
        for line in lines:
            try:
                found.append(strict_json.loads(line))
            except ValueError:
                break  # the last line of one that was killed may be cut
        return found

    @property
    def spent_s(self) -> float:
        """Wall seconds, those before an interruption included."""
        return self._before_s + time.monotonic() - self._start

    def add(self, event: Event) -> Event:
        """Keep an event, with the second at which it came."""
        event = {**event, "at": round(self.spent_s, 3)}
        self.events.append(event)
        self._write(event)
        return event

    def of(self, kind: str) -> list[Event]:
        return [e for e in self.events if e["event"] == kind]

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(strict_json.compact(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise UsageError(f"the journal {self.path} cannot be written: {error.strerror}") from None

    def close(self, finished: bool) -> None:
        """Close the file; one whose question is answered is not needed any more."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if finished and self.path is not None:
            self.path.unlink(missing_ok=True)
