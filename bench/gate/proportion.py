"""One-sided confidence bounds for a proportion (Clopper & Pearson 1934)."""

import math


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
