"""The gate's certificate: how often it was wrong on this machine, measured, with bounds (Clopper & Pearson 1934)."""

import json
import math
from pathlib import Path
from typing import Any

from bench.environment import ROOT

NAME = "gate-certificate.json"


def upper_bound(hits: int, trials: int, missed: float = 0.05) -> float:
    """One-sided upper confidence bound for a proportion (Clopper & Pearson 1934)."""
    return 1.0 if hits >= trials else _root(lambda p: _at_most(hits, trials, p) - missed)


def lower_bound(hits: int, trials: int, missed: float = 0.05) -> float:
    """One-sided lower confidence bound for a proportion."""
    return 1 - upper_bound(trials - hits, trials, missed)


def _at_most(hits: int, trials: int, p: float) -> float:
    """Chance of at most so many hits in so many trials."""
    if p in (0.0, 1.0):
        return 1.0 if p == 0 else float(hits >= trials)
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(p)
        + (trials - k) * math.log1p(-p)
        for k in range(hits + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def _root(falling) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def path(machine: str, results: Path = ROOT / "results") -> Path:
    return results / machine / NAME


def load(machine: str, results: Path = ROOT / "results") -> dict[str, Any] | None:
    """The machine's certificate, or None."""
    where = path(machine, results)
    return json.loads(where.read_text()) if where.exists() else None


def sentence(machine: str, results: Path = ROOT / "results") -> str:
    """What a gate's output says of its own trustworthiness."""
    found = load(machine, results)
    if found is None:
        return f"no certificate covers this gate on {machine}; `python -m bench calibrate` makes one"
    alarms = found["summary"].get("quiet/same")
    if not alarms:
        return f"the certificate of {found['date']} for {machine} holds no A/A decisions on a quiet machine"
    return (
        f"certificate of {found['date']} ({found['commit']}) for {machine}: {alarms['FAIL']} false alarms in "
        f"{alarms['decisions']} decisions (at most {alarms['fail_at_most']:.2%}, 95 %)"
    )
