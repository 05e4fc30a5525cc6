"""What a tuning was asked, what it measured and what follows: events are stored, every answer is derived from them."""

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import store
from bench.contenders import CONTENDERS, REFERENCE
from bench.cost import Cost
from bench.measurement import Measurement, Row
from bench.students_t import Interval
from bench.tune.asked import Asked
from bench.tune.quality import Judged
from bench.tune.race import Standing
from bench.tune.space import BY_NAME, SEAMS, Choice, contender, name_of, with_value
from sampler import strict_json
from sampler.errors import UsageError

SCHEMA = 1
FEWEST_PAIRS = 8  # of a process of the race, for it to count


@dataclass
class Tuning:
    """One search: the question, the journal of its race, the measurement of its finals.

    space: how many combinations fit together and can run here; left_out: what was not raced, and why. finalists: who
    came through the finals' inspection. notes: what was changed of the question, in sentences.
    """

    asked: Asked
    environment: dict[str, Any]
    started: str  # ISO 8601, UTC
    command: str
    space: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    finals: Measurement | None = None
    judged: dict[str, Judged] = field(default_factory=dict)
    finalists: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    took_s: float = 0.0

    @cached_property
    def standing(self) -> Standing:
        return Standing(tuple(self.events), self.asked.workload.steps, self.asked.batches, self.space)

    @cached_property
    def timed(self) -> Measurement | None:
        """The finals with what the race timed of the same rows; processes of the race are numbered after the finals'.

        Four processes of one minute agree with each other more than they do with those of another minute: of two rows
        alike, one was 6 % ahead in all four of the finals and level in the race, some minutes before. So every process
        in which a row was timed (for `FEWEST_PAIRS` at least) counts as one. That is the spread over two occasions; how
        hours differ, no search can say. The race's are also the pairs by which the finalists were picked, which
        flatters all of them. A row on a shorter path was raced on another: the finals alone count.
        """
        if self.finals is None:
            return None
        job = replace(self.finals, events=[*self.finals.events])
        after = 1 + max((e["process"] for e in job.of("pair")), default=-1)
        for name in job.rows:
            times = Counter(process for process, _ in self.standing.times.get(name, {}))
            job.events += [{**e, "process": after + e["process"]} for e in self.events if e["event"] == "pair"
                           and e["row"] == name and times[e["process"]] >= FEWEST_PAIRS]  # fmt: skip
        return job

    @cached_property
    def confirmed(self) -> bool:
        """Whether the finals were timed to their end in fresh processes."""
        return bool(self.ordered) and not self.interrupted

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Who failed, in the race or in the finals, and why."""
        of_finals = {e["row"]: e["why"] for e in self.events if e["event"] == "rejected"
                     and not (e.get("for_time") and e["row"] in self.finalists)}  # fmt: skip
        return {**self.standing.disqualified, **of_finals}

    @cached_property
    def ordered(self) -> list[Row]:
        """The finalists that were timed and did not fail, and the reference; the cheapest first."""
        if self.finals is None or self.timed is None:
            return []
        done = [name for name in self.finalists if name not in self.rejected and self.finals.of("pair", name)]
        rows = [row for row in map(self.timed.row, done) if row.status == "ok" and row.speedup is not None]
        return sorted([*rows, self.timed.row(REFERENCE)], key=self.total_s) if rows else []

    @cached_property
    def choice(self) -> str:
        """The answer. Where the finals did not come to their end: the best so far that may still be within the budgets.

        The reference, where nothing is shown to be faster.
        """
        if self.ordered and self.timed is not None:
            before = itertools.takewhile(lambda row: row.name != REFERENCE, self.ordered)
            reference_s = self.total_s(self.timed.row(REFERENCE))
            return next((row.name for row in before if self.total_s(row, _low(row)) < reference_s), REFERENCE)
        possible = [row for row in self.standing.alive if row in self.standing.times and row not in self.rejected
                    and (row not in self.judged or self.judged[row].passes) and self._lossless(row)]  # fmt: skip
        best_so_far = min(possible, key=self.standing.cost_s, default=REFERENCE)
        return best_so_far if self.standing.log_ratio(best_so_far) < 0 else REFERENCE

    def _lossless(self, row: str) -> bool:
        known = contender(BY_NAME[row]) if row in BY_NAME else CONTENDERS.get(row)
        # what a further row claims of its pictures counts from its inspection on
        judged = row in self.judged and self.judged[row].passes and (row in BY_NAME or row in self.finalists)
        return (known is not None and known.lossless) or judged

    @cached_property
    def row(self) -> Row | None:
        """The choice as the finals and the race measured it."""
        return self.timed.row(self.choice) if self.timed is not None and self.ordered else None

    @cached_property
    def speedup(self) -> Interval:
        """Of a whole run over the reference: of finals and race together (see `timed`), else of the race."""
        if self.row is not None and self.row.speedup is not None:
            return self.row.speedup
        return Interval(1.0, 1.0, 1.0) if self.choice == REFERENCE else self.standing.speedup(self.choice)

    @cached_property
    def runner_up(self) -> Row | None:
        """The next cheapest of the finals."""
        return next((row for row in self.ordered if row.name != self.choice), None)

    @cached_property
    def runner_up_lost_by(self) -> Interval | None:
        """How many times as fast the choice is as the runner-up, over the processes both were in."""
        if self.row is None or self.runner_up is None:
            return None
        return self.row.ratio_over(self.runner_up)

    @property
    def tied(self) -> bool:
        """Whether the choice and the runner-up cannot be told apart by the time of their runs."""
        by = self.runner_up_lost_by
        return by is not None and not (by.low > 1 or by.high < 1)

    @property
    def memory_bytes(self) -> float | None:
        return self.memory_of(self.choice)

    def memory_of(self, name: str) -> float | None:
        """The most that a row of the finals takes: live tensors on a CPU, what the allocator holds on CUDA."""
        return None if self.finals is None or name not in self.finals.rows else most_bytes(self.finals.row(name))

    @property
    def first_call_s(self) -> tuple[float, bool] | None:
        """Seconds of the choice's first call (the longest seen: caches serve later ones), and whether it compiled."""
        return None if self.row is None else self.start(self.row)

    def start(self, row: Row) -> tuple[float, bool] | None:
        """`first_call_s` of any row of the finals."""
        name = raced(row.name)
        in_the_race, seen = self.standing.ready_s.get(name, 0.0), row.first_call_s
        return None if seen is None else (max(seen[0], in_the_race), seen[1] or name in self.standing.compiled)

    @property
    def break_even(self) -> float | None:
        """From how many images on the choice is cheaper than the reference, first calls included; inf: never."""
        return None if self.row is None or self.choice == REFERENCE else self.break_even_of(self.row)

    def break_even_of(self, row: Row) -> float | None:
        """`break_even` of any row of the finals."""
        assert self.timed is not None
        reference = self.timed.row(REFERENCE)
        start, usual = self.start(row), self.start(reference)
        mine, theirs = Cost(row).image_s, Cost(reference).image_s
        if mine is None or theirs is None or start is None or usual is None:
            return None
        saved_s, dearer_s = theirs - mine, start[0] - usual[0]
        return math.inf if saved_s <= 0 else max(0.0, dearer_s / saved_s)

    @property
    def seams(self) -> Choice | None:
        """The choice's values at the seams, where it is a combination of them."""
        return ("",) * len(SEAMS) if self.choice == REFERENCE else BY_NAME.get(self.choice)

    def total_s(self, row: Row, speed: float | None = None) -> float:
        """What a batch costs, its part of the first call too where an end of them is known; speed: if not its own."""
        if speed is None:
            speed = 1.0 if row.name == REFERENCE or row.speedup is None else row.speedup.value
        assert self.timed is not None
        whole_s = (self.timed.row(REFERENCE).step_ms or math.nan) / 1e3 * self.asked.workload.steps
        start = self.start(row)
        return whole_s / speed + (start[0] / self.asked.batches if self.asked.batches and start else 0.0)

    def json(self) -> str:
        stored = {
            "schema": SCHEMA, "asked": self.asked.json(), "environment": self.environment, "started": self.started,
            "command": self.command, "choice": self.choice, "confirmed": self.confirmed, "space": self.space,
            "left_out": self.left_out, "finalists": self.finalists, "notes": self.notes,
            "interrupted": self.interrupted, "took_s": self.took_s,
            "judged": {name: found.json() for name, found in self.judged.items()},
            "finals": None if self.finals is None else self.finals.json(), "events": self.events,
        }  # fmt: skip
        return strict_json.compact(stored, "event") + "\n"

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Tuning":
        fields = ("environment", "started", "command", "space", "left_out", "events", "finalists", "notes",
                  "interrupted", "took_s")  # fmt: skip
        return cls(
            Asked.from_json(stored["asked"]), **{name: stored[name] for name in fields},
            finals=None if stored["finals"] is None else Measurement.from_json(stored["finals"]),
            judged={name: Judged.from_json(found) for name, found in stored["judged"].items()},
        )  # fmt: skip


def raced(name: str) -> str:
    """The row of the race that a finalist was foreseen from: the same on the reference's path."""
    return name_of(with_value(BY_NAME[name], "path", "")) if name in BY_NAME else name


def most_bytes(row: Row) -> float | None:
    """The most that a row takes in its first call or later: live tensors on a CPU, what is held on CUDA."""
    of = "live_peak" if row.measurement.workload.device == "cpu" else "held"
    found = [event[of] for phase in ("first call", "steady") if (event := Cost(row).phase(phase))]
    return max(found, default=None)


def answers(folder: Path) -> list[Path]:
    """The stored answers in a folder: one a question, with the usual seed."""
    stored = sorted(folder.glob("*.json*")) if folder.is_dir() else []
    asked = re.compile(r"(?!.*(_seed-\d+|-exhaustive)\.json).*\.json(\.gz)?")
    return [path for path in stored if asked.fullmatch(path.name)]


def load(path: Path) -> Tuning:
    """A stored tuning; refuses a file of another kind."""
    try:
        stored = store.read(path)
        if stored["schema"] != SCHEMA:
            raise UsageError(f"{path} has another schema than {SCHEMA}, which this version reads; tune again")
        return Tuning.from_json(stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no whole tuning ({type(error).__name__}: {error})") from None


def _low(row: Row) -> float:
    """The lower end of its speed-up; the value itself where one process gives no interval."""
    assert row.speedup is not None
    return row.speedup.value if math.isnan(row.speedup.low) else row.speedup.low
