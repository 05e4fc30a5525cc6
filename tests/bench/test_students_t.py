"""The interval over fresh processes: right quantiles, right coverage, and none from one value."""

import math

import numpy as np
import pytest
from scipy import stats

from bench.students_t import Interval, ratio_interval


@pytest.mark.parametrize("n", [*range(2, 32), 33, 50, 1000])
def test_half_width_against_scipy(n: int) -> None:
    logs = np.linspace(-0.1, 0.2, n)
    interval = ratio_interval(list(logs))
    error = logs.std(ddof=1) / math.sqrt(n)
    wanted = stats.t.ppf(0.975, n - 1)
    assert interval.value == pytest.approx(math.exp(logs.mean()), rel=1e-12)
    used = (math.log(interval.high) - logs.mean()) / error, (logs.mean() - math.log(interval.low)) / error
    if n <= 31:  # the table has 30 degrees of freedom, to four decimals
        assert used == pytest.approx((wanted, wanted), abs=6e-5)
    else:
        assert wanted <= min(used)
        assert max(used) < wanted * 1.05


@pytest.mark.parametrize("n", [2, 3, 5])
def test_coverage_is_95_percent(n: int) -> None:
    draws = np.random.default_rng(n).normal(0.3, 0.05, (4000, n))
    intervals = [ratio_interval(list(row)) for row in draws]
    covered = sum(i.low <= math.exp(0.3) <= i.high for i in intervals)
    assert 0.94 < covered / len(draws) < 0.96  # 2.9 standard errors either side


def test_one_process_has_a_value_and_no_interval() -> None:
    interval = ratio_interval([math.log(2)])
    assert interval.value == pytest.approx(2)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.half_width <= 1e9


def test_overlap() -> None:
    one = Interval(1.0, 0.9, 1.1)
    assert one.overlaps(Interval(1.2, 1.1, 1.3))
    assert not one.overlaps(Interval(1.3, 1.2, 1.4))
    assert not one.overlaps(ratio_interval([0.0]))
