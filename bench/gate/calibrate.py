"""`python -m bench calibrate`: measure the gate itself, launch by launch, on code whose slowdown is known.

A launch is a full set of fresh processes, with fresh ones in reserve to confirm, and takes many decisions by the
very functions that the gate uses, under each of the conditions asked for. After each launch its decisions are on
disk, so that the job may be stopped and gone on with at any time.
"""

import math
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import environment
from bench.gate import fixed_limit, thresholds
from bench.gate.adversity import burning
from bench.gate.duel import Couples, build_all, calls_for, cores_to_draw_from, deadline, is_decided, judge
from bench.gate.injected import INJECT
from bench.gate.session import FRESH_WORKERS, WORKERS
from bench.gate.thresholds import Limits
from bench.gate.verdict import RowResult
from bench.gate.worker import Side, Worker, start_all, stop_all
from bench.sequential_test import Rule
from bench.students_t import midmean
from sampler import strict_json
from sampler.errors import UsageError

SCHEMA = 1
BATCH = 3  # of the shipped model: a call takes some 12 ms, one slice
SETTLE_S = 0.3  # for the burners to get going
DECISION_S = 10.0  # the longest the first processes may take over a decision, and again the fresh ones
UNIT_PLANTED, UNIT_PAIRS = 40, 600  # units planted (about a tenth of a call) and pairs taken to measure what one costs


@dataclass(frozen=True)
class Kind:
    """One kind of decision: the slowdown planted, how, and the rule it is judged by."""

    slowdown: float = 0.0
    sleeps: bool = False
    sharp: bool = False  # θ0 = 1 %, θ1 = 3 %

    def limits(self, default: Limits) -> Limits:
        return replace(default, tolerated=0.01, must_detect=0.03) if self.sharp else default


KINDS = {
    "same": Kind(),
    "plus2": Kind(0.02),
    "plus3": Kind(0.03),
    "plus5": Kind(0.05),
    "plus10": Kind(0.10),
    "sleep10": Kind(0.10, sleeps=True),
    "sleep20": Kind(0.20, sleeps=True),
    "sharp-same": Kind(sharp=True),
    "sharp-plus3": Kind(0.03, sharp=True),
}
# decisions of each kind that one launch takes under each condition
PLAN: dict[str, dict[str, int]] = {
    "quiet": {"same": 17, "plus2": 2, "plus3": 1, "plus5": 7, "plus10": 4, "sleep10": 1, "sleep20": 1,
              "sharp-same": 1, "sharp-plus3": 2},
    "one burner": {"same": 12, "plus5": 2, "plus10": 1},
    "two burners": {"same": 3, "plus5": 1, "plus10": 1},
    "bursts": {"same": 4, "plus5": 1, "plus10": 1},
}  # fmt: skip
PLAN["shared"] = PLAN["quiet"]  # the machine as its other users leave it, which is not up to us
LAUNCHES = 30


def calibrate(
    state: Path,
    conditions: Sequence[str],
    launches: int,
    minutes: float,
    beside: int = 0,
    say: Callable[[str], None] = lambda text: None,
    seed: int | None = None,
) -> None:
    """Add launches to the state file until each condition has as many as asked for, or the minutes are used up.

    beside: in so many launches, `--benchmark-compare-fail` judges the same planted rows in the same minutes.
    """
    over = deadline(minutes * 60)
    rng = random.Random(seed if seed is not None else random.SystemRandom().getrandbits(48))
    header = _header(state, say)
    done = [strict_json.loads_older(line) for line in state.read_text().splitlines()[1:]]
    while not over():
        counts = {c: sum(c in launch["conditions"] for launch in done) for c in conditions}
        lagging = [c for c in conditions if counts[c] < launches]
        if not lagging:
            return
        number = min(counts.values()) + 1
        with_fixed = sum("fixed" in launch for launch in done) < beside
        launch = _launch(header, lagging, with_fixed, rng, over, lambda text, n=number: say(f"launch {n}: {text}"))
        if launch["decisions"]:
            done.append(launch)
            with open(state, "a") as file:
                file.write(strict_json.dumps(launch) + "\n")
                file.flush()
                os.fsync(file.fileno())


def _header(state: Path, say) -> dict[str, Any]:
    """The first line of the state: what is calibrated. Made anew where there is no state yet."""
    limits = thresholds.load().default
    mine = {"schema": SCHEMA, "workers": WORKERS, "fresh_workers": FRESH_WORKERS, "batch": BATCH,
            "tolerated": limits.tolerated, "must_detect": limits.must_detect, "missed": Rule.missed,
            "threads": 1}  # fmt: skip
    if state.exists():
        header = strict_json.loads_older(state.read_text().split("\n", 1)[0])
        for name, value in mine.items():
            if header.get(name) != value:
                raise UsageError(f"{state} was begun with {name} = {header.get(name)}, now it is {value}; remove it")
        return header
    say("measuring what a unit of planted work costs")
    unit, call_s = _unit_cost()
    head, dirty = environment.commit()
    header = {**mine, "unit": unit, "call_s": call_s, "commit": head + ("-dirty" if dirty else ""),
              "environment": environment.fingerprint("cpu")}  # fmt: skip
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(strict_json.dumps(header) + "\n")
    return header


def planted(header: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What each kind plants: units of work, or seconds of sleep."""
    rows: dict[str, dict[str, float]] = {}
    for name, kind in KINDS.items():
        if kind.sleeps:
            rows[name] = {"units": 0, "sleep_s": kind.slowdown * header["call_s"]}
        else:
            rows[name] = {"units": round(kind.slowdown / header["unit"]), "sleep_s": 0.0}
    return rows


def _unit_cost() -> tuple[float, float]:
    """The cost of one planted unit as a share of a call, and the wall seconds of a call.

    Both arms in the same process: between two processes lies more than is to be measured.
    """
    started = _start({"many": {"units": UNIT_PLANTED, "sleep_s": 0.0}, "none": {}}, 2, sides=1)
    try:
        cores = cores_to_draw_from(1, "cpu")
        build_all(started[0], ["many", "none"], cores, lambda text: None)
        couples = Couples(started[0], started[0], cores, random.Random(0), this_row="many")
        pairs = [couples.pair("none", 1) for _ in range(UNIT_PAIRS)]
    finally:
        stop_all(started)
    ratio = math.exp(midmean([pair.d for pair in pairs]))
    return (ratio - 1) / UNIT_PLANTED, median(pair.base_wall_s for pair in pairs)


def _start(inject: dict[str, Any], each: int, sides: int = 2) -> list[list[Worker]]:
    os.environ[INJECT] = strict_json.dumps(inject)
    task = {"model": None, "name": "fashion-mnist", "shape": None, "batch": BATCH, "device": "cpu", "threads": 1,
            "steps": 1000, "guidance": 3.0, "plant": "bench.gate.injected"}  # fmt: skip
    names = ("the base", "this tree")[:sides]
    return start_all([Side(name, environment.ROOT, sys.executable) for name in names], task, each)


def _launch(
    header: dict[str, Any], conditions: Sequence[str], with_fixed: bool, rng: random.Random, over, say
) -> dict[str, Any]:
    """One launch: fresh processes, then under each condition the plan's decisions in random order."""
    began, load = time.monotonic(), os.getloadavg()[0]
    say("starting fresh processes")
    started = _start(planted(header), header["workers"] + header["fresh_workers"])
    launch: dict[str, Any] = {"conditions": list(conditions), "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                              "load_1min": load, "decisions": []}  # fmt: skip
    try:
        cores = cores_to_draw_from(1, "cpu")
        rows = [name for name in KINDS if any(name in PLAN[condition] for condition in conditions)]
        everyone = [worker for side in started for worker in side]
        faults = build_all(everyone, rows, cores, lambda text: None)
        if faults:
            raise RuntimeError(f"a planted row cannot run: {faults}")
        n = header["workers"]
        first, fresh = [side[:n] for side in started], [side[n:] for side in started]
        call_s = median(worker.built["same"]["call_s"] for worker in everyone)
        launch["start_up_s"] = round(time.monotonic() - began, 1)
        blocks = list(conditions)
        rng.shuffle(blocks)
        for condition in blocks:
            kinds = [kind for kind, count in PLAN[condition].items() for _ in range(count)]
            rng.shuffle(kinds)
            with burning(condition):
                time.sleep(SETTLE_S)
                for i, kind in enumerate(kinds):
                    if over():
                        break
                    say(f"{condition}, decision {i + 1} of {len(kinds)}")
                    decision = decide(kind, first, fresh, cores, rng, call_s)
                    launch["decisions"].append({"condition": condition, **decision})
    finally:
        stop_all(started)
    if with_fixed and not over():
        say("a fixed percentage, beside it")
        try:
            launch["fixed"] = fixed_limit.judge(planted(header), BATCH)
        except RuntimeError as error:  # its fault is not the launch's, whose decisions are kept
            say(str(error))
    launch["took_s"] = round(time.monotonic() - began, 1)
    return launch


def decide(
    kind: str,
    first: Sequence[Sequence[Worker]],
    fresh: Sequence[Sequence[Worker]],
    cores: Sequence[int],
    rng: random.Random,
    call_s: float,
) -> dict[str, Any]:
    """One decision as the gate takes it: the first processes, and for a FAIL those in reserve."""
    limits = KINDS[kind].limits(thresholds.load().default)
    row = RowResult("same", limits, limits.rule(1, call_s), calls_for(call_s))
    start = time.monotonic()
    base, this = first
    judge(Couples(base, this, cores, rng, this_row=kind), [row], deadline(DECISION_S), is_decided)
    first_s = time.monotonic() - start
    provisional = row.slower.first.verdict
    if row.slower.raised:
        base, this = fresh
        reserve = Couples(base, this, cores, rng, this_row=kind)
        judge(reserve, [row], deadline(DECISION_S), lambda r: r.slower.settled, confirming=True)
    pairs = row.pairs + row.confirming
    return {
        "kind": kind, "verdict": row.time_verdict, "provisional": provisional, "first_s": round(first_s, 3),
        "seconds": round(time.monotonic() - start, 3), "pairs": len(row.pairs), "fresh_pairs": len(row.confirming),
        "d": [round(p.d, 5) for p in pairs], "d_wall": [round(p.d_wall, 5) for p in pairs], "problem": row.problem,
    }  # fmt: skip
