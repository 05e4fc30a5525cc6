"""The gate's certificate: how often it was wrong on this machine, measured, with bounds."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import store
from bench.gate import certificate_report
from bench.gate.proportion import lower_bound, upper_bound
from bench.store import write_atomically
from sampler import strict_json
from sampler.errors import UsageError

NAME = "gate-certificate.json"
# what a run must share to be covered, and what else the header tells of the design
COVERS = ("workers", "fresh_workers", "tolerated", "must_detect", "missed", "threads")
DESIGN = (*COVERS, "batch", "call_s")
WITHIN_S = 10.0  # in how long a decision should have fallen


def path(machine: str, results: Path | None = None) -> Path:
    return (store.RESULTS if results is None else results) / machine / NAME


def load(machine: str, results: Path | None = None) -> dict[str, Any] | None:
    """The machine's certificate, the user's own before one that is kept; or None."""
    where = store.stored(path(machine, results))
    if not where.exists():
        return None
    try:
        return store.read(where)
    except ValueError as error:
        raise UsageError(
            f"{where} is no certificate ({error}); make it again with `python -m bench calibrate`"
        ) from None


def sentence(machine: str, design: dict[str, Any], results: Path | None = None) -> str:
    """What a gate's output says of its own trustworthiness.

    design: of the run, by the names in COVERS; a certificate covers no other.
    """
    found = load(machine, results)
    if found is None:
        return f"no certificate covers this gate on {machine}; `python -m bench calibrate` makes one"
    for name in COVERS:
        made_with = found["design"].get(name, "not recorded")
        if made_with != design[name]:
            return (
                f"no certificate covers this run: that of {machine} was made with {name} = {made_with}, "
                f"here it is {design[name]}"
            )
    said = [
        f"{condition}: {alarms['FAIL']} false alarms in {alarms['decisions']} decisions (at most "
        f"{alarms['fail_at_most']:.2%}, 95 %)"
        for condition in ("quiet", "one burner", "shared")
        if (alarms := found["summary"].get(f"{condition}/same"))
    ]
    return f"certificate of {found['date'][:10]} ({found['commit']}) for {machine}; " + "; ".join(said)


def summarise(launches: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each 'condition/kind': counts, one-sided 95 % bounds by decision and by launch, time to a verdict.

    A launch is the unit of the second bound because its decisions share their processes: it asks in how many
    launches anything failed at all (to bound false alarms), or everything did (to bound power).
    """
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for i, launch in enumerate(launches):
        for decision in launch["decisions"]:
            name = f"{decision['condition']}/{decision['kind']}"
            found.setdefault(name, {}).setdefault(i, []).append(decision)
    return {name: _figures(list(by_launch.values())) for name, by_launch in found.items()}


def _figures(by_launch: list[list[dict[str, Any]]]) -> dict[str, Any]:
    decisions = [decision for launch in by_launch for decision in launch]
    n, launches = len(decisions), len(by_launch)
    verdicts = ("FAIL", "PASS", "UNSURE", "MISSING")
    counts = {verdict: sum(d["verdict"] == verdict for d in decisions) for verdict in verdicts}
    any_fail = sum(any(d["verdict"] == "FAIL" for d in launch) for launch in by_launch)
    all_fail = sum(all(d["verdict"] == "FAIL" for d in launch) for launch in by_launch)
    first, whole = (sorted(d[name] for d in decisions) for name in ("first_s", "seconds"))
    last_tenth = min(n - 1, math.ceil(0.9 * n) - 1)
    return {
        "decisions": n, **counts, "provisional_FAIL": sum(d["provisional"] == "FAIL" for d in decisions),
        "fail_at_most": upper_bound(counts["FAIL"], n), "fail_at_least": lower_bound(counts["FAIL"], n),
        "launches": launches, "launches_with_a_FAIL": any_fail, "launches_all_FAIL": all_fail,
        "launch_fail_at_most": upper_bound(any_fail, launches),
        "launch_all_fail_at_least": lower_bound(all_fail, launches),
        "FAIL_within_10_s": sum(d["verdict"] == "FAIL" and d["seconds"] <= WITHIN_S for d in decisions),
        "median_pairs": median(d["pairs"] for d in decisions),
        "median_first_s": median(first), "p90_first_s": first[last_tenth],  # without the fresh processes
        "median_s": median(whole), "p90_s": whole[last_tenth],  # with them
        "measured_slowdown": math.expm1(median(d for decision in decisions for d in decision["d"])),
        "measured_wall_slowdown": math.expm1(median(d for decision in decisions for d in decision["d_wall"])),
    }  # fmt: skip


def from_state(state: Path) -> dict[str, Any]:
    """The certificate from the launches that are kept; refuses a file that holds none."""
    try:
        header, *launches = (strict_json.loads_older(line) for line in store.read_text(state).splitlines())
    except (OSError, ValueError) as error:
        raise UsageError(f"{state} holds no calibration: {error}") from None
    if not launches:
        raise UsageError(f"{state} holds no finished launch yet; give it more --minutes")
    design = {name: header[name] for name in DESIGN if name in header}
    made: dict[str, Any] = {
        "schema": header["schema"], "date": max(launch["at"] for launch in launches), "commit": header["commit"],
        "machine": header["environment"]["machine"], "design": design,
        "environment": header["environment"], "load_1min": [launch["load_1min"] for launch in launches],
        "summary": summarise(launches), "beside": beside(launches),
    }  # fmt: skip
    return made


def beside(launches: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Of the launches in which a fixed percentage judged too: {condition: {kind: counts of both}}."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for launch in launches:
        for kind, (fixed, n) in launch.get("fixed", {}).items():
            # the fixed one ran with no burner: it is compared with what was decided without one in that launch
            for condition in {"quiet", "shared"} & set(launch["conditions"]):
                mine = [d for d in launch["decisions"] if (d["condition"], d["kind"]) == (condition, kind)]
                sums = found.setdefault(condition, {}).setdefault(kind, dict.fromkeys(
                    ("fixed_FAIL", "fixed", "gate_FAIL", "gate"), 0))  # fmt: skip
                sums["fixed_FAIL"] += fixed
                sums["fixed"] += n
                sums["gate_FAIL"] += sum(d["verdict"] == "FAIL" for d in mine)
                sums["gate"] += len(mine)
    return found


def write(state: Path) -> list[Path]:
    """gate-certificate.json, .md and gate-power.png beside the state file, from it alone; returns their paths."""
    made = from_state(state)
    outputs: dict[str, str | bytes] = {
        NAME: strict_json.dumps(made, indent=1) + "\n", "gate-certificate.md": certificate_report.table(made),
        "gate-power.png": certificate_report.power_plot(made["summary"]),
    }  # fmt: skip
    for name, content in outputs.items():
        write_atomically(state.parent / name, content)
    return [state.parent / name for name in outputs]
