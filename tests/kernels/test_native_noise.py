"""The noise drawn in registers: the definition's words bit for bit, its normals within a few ulp."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sampler.noise import philox_4x32, philox_normal
from sampler.posterior import Guided

given, st = pytest.importorskip("hypothesis").given, pytest.importorskip("hypothesis.strategies")
stats = pytest.importorskip("scipy.stats")
MASK32 = 0xFFFF_FFFF
SEEDS = st.integers(0, 2**64 - 1)
IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4).map(torch.tensor)
STEPS = st.integers(0, 1000)


def words_by_definition(seed: int, ids: Tensor, step: int, blocks: int) -> Tensor:
    """[B, blocks, 4] int64."""
    counter = (torch.arange(blocks)[None], step, (ids & MASK32)[:, None], (ids >> 32)[:, None])
    return torch.stack(philox_4x32(counter, (seed & MASK32, seed >> 32)), dim=-1)


def normals_in_double(words: Tensor) -> np.ndarray:
    """Box & Muller in float64, of the words themselves."""
    w = words.numpy().astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log((w[..., 0::2] + 0.5) / 2**32)), 2 * math.pi * w[..., 1::2] / 2**32
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return z.reshape(len(words), -1)


def ulps(z: Tensor, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the last place of the exact float32 value; quarter turns, whose zero is exact, count 0."""
    spacing = np.spacing(np.maximum(np.abs(exact), 1e-12).astype(np.float32))
    return np.where(np.abs(exact) < 1e-12, 0, np.abs(z.numpy() - exact) / spacing)


@given(seed=SEEDS, ids=IDS, step=STEPS, blocks=st.integers(1, 200))
def test_words(native, seed, ids, step, blocks):
    words = native.native_words(seed, ids, step, blocks)
    assert torch.equal(words, words_by_definition(seed, ids, step, blocks))


@given(seed=SEEDS, ids=IDS, step=STEPS, elements=st.integers(1, 800))
def test_normals(native, seed, ids, step, elements):
    z = native.native_normal(seed, ids, torch.tensor([step]), elements)
    exact = normals_in_double(words_by_definition(seed, ids, step, (elements + 3) // 4))[:, :elements]
    assert ulps(z, exact).max() < 5
    assert ulps(philox_normal(seed, ids, step, elements), exact).max() <= 0.5  # the definition rounds once


@pytest.fixture(scope="module")
def million(native) -> tuple[Tensor, np.ndarray]:
    """(normals float32, the same in float64), 2^20 of each."""
    ids = torch.arange(256) + (3 << 32)
    z = native.native_normal(2**63 + 11, ids, 77, 4096)
    return z, normals_in_double(words_by_definition(2**63 + 11, ids, 77, 1024))


def test_accuracy_over_a_million(million):
    z, exact = million
    assert ulps(z, exact).max() < 5
    assert ulps(z, exact).mean() < 0.6


def test_the_normal_law(million):
    z = million[0].numpy().astype(np.float64).ravel()
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.size)
    assert abs(stats.skew(z)) < 4 * math.sqrt(6 / z.size)
    assert abs(stats.kurtosis(z)) < 4 * math.sqrt(24 / z.size)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for limit in (3, 4):
        expected = 2 * stats.norm.sf(limit) * z.size
        assert abs((np.abs(z) > limit).sum() - expected) < 4 * math.sqrt(expected)
    assert 4.5 < np.abs(z).max() < 6.7
    for lag in (1, 2, 3, 4, 4096):
        assert abs(np.mean(z[:-lag] * z[lag:])) < 4 / math.sqrt(z.size)
        assert abs(np.mean(z[:-lag] ** 2 * z[lag:] ** 2) - 1) < 4 * math.sqrt(8 / z.size)


@given(
    seed=SEEDS,
    ids=IDS,
    step=STEPS,
    elements=st.integers(1, 700),
    which=st.integers(0, 24),
    guided=st.booleans(),
)
def test_the_drawn_update_is_the_update_of_what_is_drawn(native, rows, seed, ids, step, elements, which, guided):
    x, conditional, unconditional = torch.randn(3, len(ids), elements, generator=torch.Generator().manual_seed(1))
    out = Guided(conditional, unconditional, 1.7) if guided else conditional
    result = native.native_posterior_drawn(x, out, seed, ids, step, rows[which])
    z = native.native_normal(seed, ids, step, elements)
    assert torch.equal(result, native.native_posterior(x, out, z, rows[which]))


def test_a_sample_does_not_know_its_batch(native):
    ids = torch.tensor([5, 17, 2**40])
    together = native.native_normal(3, ids, 9, 3 * 28 * 28)
    for i in range(3):
        assert torch.equal(together[i : i + 1], native.native_normal(3, ids[i : i + 1], 9, 3 * 28 * 28))


def test_drawn_destination_and_nan(native, rows):
    x, out = torch.randn(2, 2, 300, generator=torch.Generator().manual_seed(2))
    x[0, 299], out[1, 7] = float("nan"), float("nan")
    ids = torch.arange(2)
    for row in (rows[2], rows[4]):  # with noise, and the last row, where σ = 0
        result = native.native_posterior_drawn(x, out, 1, ids, 2, row, torch.full_like(x, float("nan")))
        assert result.isnan().nonzero().tolist() == [[0, 299], [1, 7]]
        state = x.clone()
        assert native.native_posterior_drawn(state, out, 1, ids, 2, row, state) is state
        torch.testing.assert_close(state, result, rtol=0, atol=0, equal_nan=True)
