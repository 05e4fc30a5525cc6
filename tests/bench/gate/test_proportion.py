"""The bounds against SciPy's beta quantiles, of which they are the definition."""

import pytest

from bench.gate.proportion import lower_bound, upper_bound

beta = pytest.importorskip("scipy.stats").beta


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (0, 500), (3, 500), (199, 200), (17, 40), (500, 510)])
def test_against_scipy(hits: int, trials: int) -> None:
    assert upper_bound(hits, trials) == pytest.approx(beta.ppf(0.95, hits + 1, trials - hits), abs=1e-9)
    low = beta.ppf(0.05, hits, trials - hits + 1) if hits else 0.0
    assert lower_bound(hits, trials) == pytest.approx(low, abs=1e-9)


def test_all_and_nothing() -> None:
    assert upper_bound(7, 7) == 1.0
    assert lower_bound(0, 7) == pytest.approx(0.0, abs=1e-12)
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
