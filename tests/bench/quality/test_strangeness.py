"""Strangeness of a picture: a conformal rank among real ones, label by label."""

import math

import pytest
import torch

from bench.quality.strangeness import nearest, strangeness
from sampler.errors import UsageError


def test_the_nearest_is_sought_within_the_label() -> None:
    real = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 3.0]])
    of = torch.tensor([0, 1, 0])
    found = nearest(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]), real, of)
    assert found.tolist() == pytest.approx([1.0, math.sqrt(101)])
    with pytest.raises(UsageError, match="label 2"):
        nearest(torch.zeros(1, 2), torch.tensor([2]), real, of)


def test_the_rank_counts_real_pictures_at_least_as_far() -> None:
    known = torch.arange(1.0, 100.0, dtype=torch.float64)  # 99 real distances: 1, 2, ..., 99
    labels = torch.zeros(99, dtype=torch.long)
    asked = torch.tensor([0.5, 50.0, 99.0, 99.5], dtype=torch.float64)
    found = strangeness(asked, torch.zeros(4, dtype=torch.long), known, labels)
    assert (10**-found).tolist() == pytest.approx([1.0, 51 / 100, 2 / 100, 1 / 100])


def test_real_pictures_have_the_mean_of_an_exponential_whatever_the_space() -> None:
    """p of exchangeable pictures is uniform, so -log10 p has the mean 1 / ln 10."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(n, 8, generator=generator, dtype=torch.float64) ** 3  # noqa: E731
    real, test, fresh = draw(500), draw(2000), draw(2000)
    labels = lambda n: torch.arange(n) % 5  # noqa: E731
    known = nearest(test, labels(2000), real, labels(500))
    found = strangeness(nearest(fresh, labels(2000), real, labels(500)), labels(2000), known, labels(2000))
    assert float(found.mean()) == pytest.approx(1 / math.log(10), abs=0.04)


def test_a_few_ruined_pictures_raise_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    draw = lambda n, spread=1.0: torch.randn(n, 8, generator=generator, dtype=torch.float64) * spread  # noqa: E731
    real, test, sound = draw(500), draw(500), draw(500)
    spoilt = torch.cat([sound[:450], draw(50, 3.0)])
    of = torch.zeros(500, dtype=torch.long)
    known = nearest(test, of, real, of)
    before, after = (strangeness(nearest(x, of, real, of), of, known, of) for x in (sound, spoilt))
    assert float(after.mean() - before.mean()) > 0.1
