"""The interval over fresh processes: right quantiles, right coverage, and none from one value."""

import math

import numpy as np
import pytest

from bench.students_t import Interval, midmean, ratio_interval

stats = pytest.importorskip("scipy.stats")


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


@pytest.mark.parametrize("n", range(1, 14))
def test_midmean_is_the_mean_between_the_quartiles(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    fine = np.repeat(np.sort(values), 4)  # each value four times: a quarter is then a whole number
    assert midmean(list(values)) == pytest.approx(fine[n : 3 * n].mean(), abs=1e-12)


def test_midmean_is_less_noisy_than_the_median_and_as_deaf_to_outliers() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 16))
    middles = np.array([midmean(list(row)) for row in draws])
    assert middles.std() < 0.95 * np.median(draws, axis=1).std()
    assert midmean([1.0, 1.1, 0.9, 1.0, 1e9]) == pytest.approx(1.0, abs=0.1)


def test_midmean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        midmean([])
