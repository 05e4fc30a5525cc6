"""How long an answer may take before its process is ended: some times what is known, and much where nothing is.

A row that hangs is red after these seconds; one that works must not be, on the slowest and busiest machine. What is
known of a row is its first call (load, compile, a few steps), as soon as any process has told of one; of a row that
compiles nothing, the reference's will do.
"""

from collections.abc import Iterable
from typing import Any

from bench.contenders import CONTENDERS, REFERENCE, Contender
from bench.workload import Workload

LEAST_S = 120.0  # a step takes milliseconds, a first call seconds; other work may hold both up
UNKNOWN_S = 900.0  # a cold compile of a large model; the imports of a process on a disk that others use
# how many times a row's first call a part of the work takes at most: a call is some steps, a look some hundred of them
TIMES = {"order": 20, "first_call": 20, "slice": 20, "part": 20, "batch": 20, "look": 100, "run": 1000}
NOT_A_ROWS = ("judging", "roof")  # what is done without a row's own steps
WORDS = {"first_call": "its first call", "slice": "a timed slice", "part": "a whole run", "run": "a whole run"}


class Patience:
    """What was heard of first calls, and what follows from it.

    `workload.patience_s` overrules that for a first call, a slice and a part of a whole run; in proportion for what
    takes more steps; and not at all for what is no row's: a start, the judging of pictures, the machine's roof.
    """

    def __init__(self, workload: Workload, contenders: Iterable[Contender] = ()):
        self.workload = workload
        self.like_the_reference = {c.name for c in (*CONTENDERS.values(), *contenders) if not c.compiles}
        self.known_s: dict[str, float] = {}  # the longest first call of each row, loading included

    def heard(self, event: dict[str, Any]) -> None:
        seconds = {"first_call": event.get("seconds", 0.0) + event.get("load_s", 0.0),
                   "start": event.get("ready_s", 0.0)}.get(event["event"])  # fmt: skip
        if seconds is not None:
            self.known_s[event["row"]] = max(seconds, self.known_s.get(event["row"], 0.0))

    def seconds(self, doing: dict[str, Any] | None) -> float:
        """How long the next answer may take, after this event that says what is done now; None: it starts."""
        phase = (doing or {}).get("phase")
        if phase is None:
            return UNKNOWN_S
        if phase in NOT_A_ROWS:
            return max(UNKNOWN_S, 10 * self.workload.quality_s)
        times = TIMES[phase] * max(1.0, (doing or {}).get("batch", 0) / self.workload.batch)
        if self.workload.patience_s is not None:
            return self.workload.patience_s * times / TIMES["slice"]
        row = (doing or {}).get("row") or REFERENCE
        alike = REFERENCE if row in self.like_the_reference else row
        known = [self.known_s[name] for name in (row, alike) if name in self.known_s]
        return max(LEAST_S, times * max(known)) if known else UNKNOWN_S

    def sentence(self, doing: dict[str, Any] | None, was_stopped: bool) -> str:
        """What is said of a process that missed it."""
        phase = (doing or {}).get("phase")
        where = "its start" if phase is None else WORDS.get(phase, f"'{(doing or {})['text']}'")
        why = "; a signal had stopped it" if was_stopped else ""
        return f"no answer in {self.seconds(doing):,.0f} s during {where}{why}"
