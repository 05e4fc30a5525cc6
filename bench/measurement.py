"""What was measured, as it was measured, and the opinions derived from it.

A `Measurement` holds raw events only; a `Row` computes. The unit of replication is the fresh process: each
gives one midmean of ln(contender / reference) over its pairs, and the interval is Student's t over processes.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import Any

from bench.contenders import CONTENDERS, REFERENCE, TEXTBOOK
from bench.journal import Journal
from bench.quality import equivalence
from bench.quality.equivalence import NOT_JUDGED, OPEN, WORSE
from bench.quality.judging import Figures
from bench.quality.same_noise import Divergence
from bench.students_t import Interval, midmean, ratio_interval
from bench.telemetry import WATCHED
from bench.workload import Workload, from_json

SCHEMA = 1
HALF_GREY_LEVEL = 1 / 255  # in the pictures' range of 2: more than this may show


@dataclass
class Measurement:
    """Raw facts of one run: the workload, the environment, and every event in order.

    Each event is a dict with `event` ('first_call', 'pair', 'probe', 'segment', 'pictures', 'axis', 'error',
    'unavailable', …), mostly `row`, `process` (number of the fresh process), and times in seconds.
    """

    workload: Workload
    environment: dict[str, Any]
    rows: list[str]
    started: str  # ISO 8601, UTC
    command: str
    events: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    took_s: float = 0.0
    journal: Journal | None = field(default=None, repr=False, compare=False)  # where events go as they come
    _derived: "_Derived" = field(default_factory=lambda: _Derived([]), init=False, repr=False, compare=False)

    def keep(self, event: dict[str, Any]) -> None:
        """Add an event as it comes; of what is told once more, the latest word counts."""
        if self.journal is not None:
            self.journal.add(event)
        kind = event["event"]
        if kind == "again":  # what was heard so far of a row, or of kinds, is heard anew
            kinds, mine = event.get("kinds", ()), (event.get("row"), event.get("process"))
            self.events = [e for e in self.events if e["event"] not in kinds
                           and (mine[0] is None or (e.get("row"), e.get("process")) != mine)]  # fmt: skip
            return
        if kind == "evidence":  # counts of a process grow
            same = (event["row"], event["where"], event["process"])
            self.events = [e for e in self.events
                           if e["event"] != kind or (e["row"], e["where"], e["process"]) != same]  # fmt: skip
        self.events.append(event)

    def of(self, kind: str, row: str | None = None) -> list[dict[str, Any]]:
        return list(self._known().events.get((kind, row), ()))

    def row(self, name: str) -> "Row":
        """The row's figures from the events so far."""
        rows = self._known().rows
        if name not in rows:
            rows[name] = Row(self, name)
        return rows[name]

    @property
    def watched(self) -> bool:
        """Whether anything tells of the machine while slices were timed; without, none is known to be undisturbed."""
        known = self._known()
        if known.watched is None:
            known.watched = any(not WATCHED.isdisjoint(pair) for pair in known.events.get(("pair", None), ()))
        return known.watched

    def _known(self) -> "_Derived":
        if self._derived.source is not self.events or self._derived.count != len(self.events):
            self._derived = _Derived(self.events)
        return self._derived

    def json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "started": self.started, "command": self.command, "took_s": self.took_s,
            "interrupted": self.interrupted, "workload": self.workload.json(), "environment": self.environment,
            "rows": self.rows, "events": self.events,
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Measurement":
        return cls(
            from_json(stored["workload"]), stored["environment"], stored["rows"], stored["started"],
            stored["command"], stored["events"], stored["interrupted"], stored["took_s"],
        )  # fmt: skip

    @property
    def best_lossless(self) -> str:
        """The fastest row that changes no numbers, by its measured speed-up."""
        return self.fastest("lossless", lambda row: True).name

    def fastest(self, name: str, among: Callable[["Row"], bool]) -> "Row":
        """The fastest row that changes no picture, of those that will do; the reference where there is none.

        name: by which the answer is remembered until more events come.
        """
        known = self._known().fastest
        if name not in known:
            rows = [self.row(n) for n in self.rows]
            sound = [r for r in rows if r.status == "ok" and r.lossless and r.speedup and among(r)]
            known[name] = max(sound, key=lambda r: r.speedup.value, default=self.row(REFERENCE))  # type: ignore[union-attr]
        return known[name]


class _Derived:
    """What was derived from a list of events; good until the list changes, as it does while a job runs."""

    def __init__(self, source: list[dict[str, Any]]):
        self.source, self.count = source, len(source)
        self.rows: dict[str, Row] = {}
        self.fastest: dict[str, Row] = {}
        self.watched: bool | None = None
        self.events: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        for event in source:
            self.events.setdefault((event["event"], None), []).append(event)
            if event.get("row") is not None:
                self.events.setdefault((event["event"], event["row"]), []).append(event)


@dataclass(frozen=True)
class Row:
    """One contender's figures in one measurement."""

    measurement: Measurement
    name: str

    @property
    def lossless(self) -> bool:
        return CONTENDERS[self.name].lossless if self.name in CONTENDERS else self._claim.get("lossless", True)

    @property
    def changes(self) -> str:
        return CONTENDERS[self.name].changes if self.name in CONTENDERS else self._claim.get("changes", "planted")

    @property
    def _claim(self) -> dict[str, Any]:
        """What a contender that is not a shipped one says of itself."""
        return next(iter(self.measurement.of("contender", self.name)), {})

    @property
    def origin(self) -> str:
        """The module of a contender that is not a shipped one, as `--contenders` names it; '' for a shipped one."""
        return "" if self.name in CONTENDERS else self._claim.get("of") or ""

    @property
    def budget(self) -> equivalence.Budget | None:
        """What its pictures may lose, where it states that."""
        if self.name in CONTENDERS:
            return CONTENDERS[self.name].budget
        stated = self._claim.get("budget")
        return equivalence.Budget(**stated) if stated else None

    @property
    def promises(self) -> bool:
        """Whether it is red beyond its budget."""
        return CONTENDERS[self.name].promises if self.name in CONTENDERS else True

    @cached_property
    def status(self) -> str:
        """'ok', 'red' (raised, ended its process, or claims to change no picture and does), 'grey', 'missing'."""
        if self.measurement.of("unavailable", self.name):
            return "grey"
        if self.reason:
            return "red"
        if not self.step_s:
            return "missing"
        return "ok"

    @cached_property
    def reason(self) -> str:
        """Why the row is red, grey or missing, in one sentence; else ''."""
        for kind in ("unavailable", "error"):
            for event in self.measurement.of(kind, self.name):
                return event["message"]
        for death in self.measurement.of("died"):
            if death.get("doing") == self.name != REFERENCE and not death.get("again"):  # it was tried once more
                return death["message"] if "silent_s" in death else f"its process ended: {death['message']}"
        evidence = self.measurement.of("evidence", self.name)
        if self.measurement.of("evidence", REFERENCE) and not any(e["where"] == "inspection" for e in evidence):
            return "not shown to have engaged: its inspection came to no finding"
        for event in evidence:
            against = [text for ok, text in event["findings"] if not ok]
            if against:
                return f"not shown to have engaged: {'; '.join(against)}"
        error = self.probe_error
        if self.lossless and error is not None and not error <= HALF_GREY_LEVEL:
            return (
                f"claims to change no picture, but on the same noise differs from the reference by {error:.2g} "
                f"(allowed: half a grey level, {HALF_GREY_LEVEL:.4f})"
            )
        if not self.lossless and error is not None and not math.isfinite(error):
            return "its pictures hold NaN or infinity"
        if self.divergence is not None and self.divergence.fault:
            return self.divergence.fault
        verdict, why = self.verdict
        return f"layer 2 (other pictures): {why}" if verdict == WORSE and self.promises else ""

    @cached_property
    def divergence(self) -> Divergence | None:
        """Layer 1 of quality: how far it leaves a float64 run on the same noise; None where it was not looked at."""
        found = self.measurement.of("divergence", self.name)
        return Divergence.from_json(found[-1]) if found else None

    @cached_property
    def figures(self) -> Figures | None:
        """Layer 2: what its pictures are worth; None where none were judged."""
        found = self.measurement.of("quality", self.name)
        return Figures.from_json(found[-1]["figures"]) if found else None

    @cached_property
    def verdict(self) -> tuple[str, str]:
        """Against the row's own budget, as `equivalence.verdict` has it, and why; '' where it has none."""
        budget = self.budget
        if budget is None:
            return "", ""
        if self.figures is None or not self.figures.losses:
            return NOT_JUDGED, "no pictures were judged in this run; `python -m bench quality` draws enough of them"
        return equivalence.verdict(self.figures.losses, budget, self._picture_s)

    @property
    def _picture_s(self) -> float | None:
        return 1 / self.images_per_s if self.images_per_s else None

    @property
    def amber(self) -> bool:
        """It ran, and its pictures are not shown to be inside its budget."""
        return self.status == "ok" and self.verdict[0] in OPEN

    @property
    def absence(self) -> str:
        """Why there are no figures, for a row that is grey or missing."""
        died = [e["message"] for e in self.measurement.of("died")]
        return self.reason or "not measured" + (f"; a worker ended early: {died[0]}" if died else "")

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        return self.measurement.of("pair", self.name)

    @cached_property
    def steps(self) -> int:
        """Network steps of a whole run of this row."""
        for event in self.measurement.of("first_call", self.name):
            return event["steps"]
        return self.measurement.workload.steps

    @cached_property
    def reference_steps(self) -> int:
        return self.measurement.row(REFERENCE).steps if self.name != REFERENCE else self.steps

    def log_ratios(self, suffix: str = "_s") -> dict[int, float]:
        """For each process, the midmean of ln(row / reference) over its pairs, a step."""
        if suffix not in self._log_ratios:
            found: dict[int, list[float]] = {}
            for pair in self.pairs:
                ratio = math.log(pair["row" + suffix] / pair["reference" + suffix])
                found.setdefault(pair["process"], []).append(ratio)
            self._log_ratios[suffix] = {process: midmean(values) for process, values in found.items()}
            if self.name == REFERENCE:
                self._log_ratios[suffix] = {p: 0.0 for p in _processes(self.measurement.of("pair"))}
        return self._log_ratios[suffix]

    @cached_property
    def _log_ratios(self) -> dict[str, dict[int, float]]:
        return {}

    def ratio_over(self, other: "Row", whole: bool = True, suffix: str = "_s") -> Interval | None:
        """How many times faster than another row, a whole run (or a step), over the processes both were in."""
        mine, theirs = self.log_ratios(suffix), other.log_ratios(suffix)
        both = sorted(mine.keys() & theirs.keys())
        if self.status != "ok" or other.status != "ok" or not both:
            return None
        by_steps = math.log(other.steps / self.steps) if whole else 0.0
        return ratio_interval([theirs[p] - mine[p] + by_steps for p in both])

    @cached_property
    def speedup(self) -> Interval | None:
        """Of a whole run, over the reference, by the deciding clock."""
        return self.ratio_over(self.measurement.row(REFERENCE))

    @cached_property
    def wall_speedup(self) -> Interval | None:
        return self.ratio_over(self.measurement.row(REFERENCE), suffix="_wall_s")

    @cached_property
    def speedup_over_textbook(self) -> Interval | None:
        return self.ratio_over(self.measurement.row(TEXTBOOK))

    @cached_property
    def speedup_over_best_lossless(self) -> Interval | None:
        return self.ratio_over(self.measurement.row(self.measurement.best_lossless))

    @cached_property
    def step_s(self) -> list[float]:
        """Seconds a step, one a slice, in the order measured."""
        if self.name == REFERENCE:
            return [pair["reference_s"] for pair in self.measurement.of("pair")]
        return [pair["row_s"] for pair in self.pairs]

    @cached_property
    def step_ms(self) -> float | None:
        return median(self.step_s) * 1e3 if self.step_s else None

    @cached_property
    def whole_runs(self) -> list[list[dict[str, Any]]]:
        """The parts of each whole run of which every step was timed, with their place among the parts of all rows."""
        runs: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for i, segment in enumerate(self.measurement.of("segment")):
            if segment["row"] == self.name:
                key = segment.get("process", 0), segment.get("run", 0)
                runs.setdefault(key, []).append({**segment, "place": i})
        return [run for run in runs.values() if sum(s["steps"] for s in run) == self.steps]

    @cached_property
    def whole_run_timed_s(self) -> float | None:
        """Mean seconds of the whole runs of which every step was timed; None where there was none."""
        return fmean(sum(s["seconds"] for s in run) for run in self.whole_runs) if self.whole_runs else None

    @property
    def whole_run_s(self) -> float | None:
        """Timed where it was, else the median step times the steps (`whole_run_timed_s` is then None)."""
        if self.whole_run_timed_s is not None:
            return self.whole_run_timed_s
        return None if self.step_ms is None else self.step_ms * self.steps / 1e3

    @cached_property
    def whole_speedup(self) -> float | None:
        """How many times faster than the reference by whole runs, where both were timed.

        The two take turns, part by part, and each part of this row counts against the reference's parts before and
        after it in the same visit: on a shared machine, in which steps may take twice as long for some seconds, the few
        parts of a short run meet such seconds more or less often than the reference's do.
        """
        reference = self.measurement.row(REFERENCE)
        if not self.whole_runs or not reference.whole_runs or self.name == REFERENCE:
            return None
        parts = self.measurement.of("segment")
        places = [i for i, part in enumerate(parts) if part["row"] == REFERENCE]
        mine_s = theirs_s = 0.0
        for part in (part for run in self.whole_runs for part in run):
            after = bisect(places, part["place"])
            near = [parts[i] for i in places[max(0, after - 1) : after + 1]]
            beside = [one for one in near if _visit(one) == _visit(part)] or near
            mine_s += part["seconds"]
            theirs_s += part["steps"] * fmean(one["seconds"] / one["steps"] for one in beside)
        return theirs_s / mine_s * reference.steps / self.steps

    @cached_property
    def slices_against_whole(self) -> float | None:
        """(Speed-up by slices) / (speed-up by whole runs) - 1, where both were timed."""
        if self.speedup is None or self.whole_speedup is None:
            return None
        return self.speedup.value / self.whole_speedup - 1

    @property
    def images_per_s(self) -> float | None:
        return None if not self.whole_run_s else self.measurement.workload.batch / self.whole_run_s

    @cached_property
    def first_call_s(self) -> tuple[float, bool] | None:
        """Seconds of the first call in this run, and whether it compiled (else a cache served it)."""
        calls = self.measurement.of("first_call", self.name)
        if not calls:
            return None
        return calls[0]["seconds"], calls[0]["compiled_now"]

    @cached_property
    def probe_error(self) -> float | None:
        """Largest difference from the reference after the same short path on the same noise, in [-1, 1] units."""
        probes = self.measurement.of("probe", self.name)
        # NaN counts as the largest, which `max` alone would lose
        return max((p["largest"] for p in probes), key=lambda e: (math.isnan(e), e), default=None)

    @property
    def needs_longer(self) -> bool:
        """Its interval is wider than the preset promises."""
        target = self.measurement.workload.target_half_width
        return self.speedup is None or (self.name != REFERENCE and not self.speedup.half_width <= target)


def _processes(events: Iterable[dict[str, Any]]) -> list[int]:
    return sorted({e["process"] for e in events})


def _visit(part: dict[str, Any]) -> tuple[int | None, int | None]:
    """A part of a whole run was taken in one visit of one process."""
    return part.get("process"), part.get("visit")
