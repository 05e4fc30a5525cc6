"""The middle of many noisy values, and intervals for a mean of few: Student's t at 95 %, two-sided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# 97.5 % quantiles for 1…30 degrees of freedom (checked against SciPy in the tests)
_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; low and high are NaN where there is no second value to judge by."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width relative to the value."""
        return (self.high - self.low) / 2 / self.value

    def overlaps(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high


def quantile(freedom: int) -> float:
    """The 97.5 % quantile; beyond 30 degrees of freedom slightly too large, never too small."""
    return _T975[min(freedom - 1, len(_T975) - 1)]


def ratio_interval(log_ratios: Sequence[float]) -> Interval:
    """exp of the mean of log ratios, one a fresh process, with the t interval."""
    n, mean = len(log_ratios), fmean(log_ratios)
    if n < 2:
        return Interval(math.exp(mean), math.nan, math.nan)
    half = quantile(n - 1) * stdev(log_ratios) / math.sqrt(n)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of values with its t interval."""
    n, mean = len(values), fmean(values)
    half = _T975[min(n - 2, len(_T975) - 1)] * stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half)


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half (25 % trimmed at each end; Tukey 1977): the median's robustness, less of its noise.

    Where a quarter is no whole number, the outermost values kept count in part.
    """
    if not values:
        raise ValueError("the midmean of nothing")
    ordered = sorted(values)
    cut, part = divmod(len(ordered) / 4, 1)
    kept = ordered[int(cut) : len(ordered) - int(cut)]
    weights = [1.0] * len(kept)
    if len(kept) > 1:
        weights[0] = weights[-1] = 1 - part
    return sum(w * v for w, v in zip(weights, kept, strict=True)) / sum(weights)
