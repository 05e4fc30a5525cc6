"""The normals drawn in registers, over millions; run by test_fused_posterior.py in a process of its own."""

import os

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from kernels import philox, posterior_kernel
from sampler.noise import philox_4x32

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
SEED, STEP, SAMPLES, ELEMENTS = 2**63 + 11, 77, 128, 2**14  # 2^21 numbers


@triton.jit
def _words(destination, seed, sample_id, step, COUNTERS: tl.constexpr):
    blocks = tl.arange(0, COUNTERS)
    w0, w1, w2, w3 = philox.words(tl.load(seed), tl.load(sample_id), tl.load(step), blocks)
    tl.store(destination + blocks * 4, w0.to(tl.int64))
    tl.store(destination + blocks * 4 + 1, w1.to(tl.int64))
    tl.store(destination + blocks * 4 + 2, w2.to(tl.int64))
    tl.store(destination + blocks * 4 + 3, w3.to(tl.int64))


@pytest.mark.parametrize(("seed", "sample_id", "step"), [(0, 0, 0), (2**64 - 2, 2**63 - 1, 999), (77, 5, 2**31)])
def test_words_are_equal_bit_for_bit(seed, sample_id, step):
    words = torch.empty(64, 4, dtype=torch.int64, device=DEVICE)
    key = [torch.tensor([v - 2**64 if v >= 2**63 else v]).to(DEVICE) for v in (seed, sample_id, step)]
    _words[(1,)](words, *key, COUNTERS=64)
    counter = (torch.arange(64), step, sample_id & 0xFFFF_FFFF, sample_id >> 32)
    expected = torch.stack(philox_4x32(counter, (seed & 0xFFFF_FFFF, seed >> 32)), dim=-1)
    assert torch.equal(words.cpu(), expected)


@triton.jit
def _box_muller(cosine, sine, radius_words, angle_words, N: tl.constexpr):
    at = tl.arange(0, N)
    z0, z1 = philox.box_muller(tl.load(radius_words + at).to(tl.uint32), tl.load(angle_words + at).to(tl.uint32))
    tl.store(cosine + at, z0)
    tl.store(sine + at, z1)


def in_double(radius_words: torch.Tensor, angle_words: torch.Tensor) -> np.ndarray:
    """(cosines, sines) by Box & Muller in float64, of the words themselves."""
    radius = torch.sqrt(-2 * torch.log((radius_words.double() + 0.5) * 2.0**-32))
    angle = angle_words.double() * (2 * torch.pi * 2.0**-32)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)]).numpy()


def ulps(z: torch.Tensor, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the last place; where a quarter turn makes it zero, any tiny number will do."""
    zero = np.abs(exact) < 1e-14
    error = np.abs(z.cpu().numpy() - exact) / np.spacing(np.where(zero, 1, np.abs(exact)).astype(np.float32))
    return np.where(zero, 0, error)


def test_edges_are_within_a_few_ulp_of_double():
    """The smallest, largest and quarter-turn words, and both sides of √½, where the logarithm changes its branch."""
    edges = [0, 1, 127, 128, 2**29, 2**30, 2**31, 3 * 2**30, 0xB504F334, 2**32 - 2**29, 2**32 - 128, 2**32 - 1]
    edges = torch.tensor(sorted({min(max(e + d, 0), 2**32 - 1) for e in edges for d in (-1, 0, 1)}))
    words = torch.randint(2**32, (2, 4096), generator=torch.Generator().manual_seed(1))
    words[:, : len(edges) ** 2] = torch.cartesian_prod(edges, edges).T
    z = torch.full((2, 4096), float("nan"), device=DEVICE)
    _box_muller[(1,)](z[0], z[1], *words.to(DEVICE), N=4096)
    assert ulps(z, in_double(*words)).max() < 5


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, np.ndarray]:
    """Two million numbers of the kernel that writes them to memory, and the same in float64."""
    ids = torch.arange(SAMPLES) + (3 << 32)
    z = torch.full((SAMPLES, ELEMENTS), float("nan"), device=DEVICE)
    key = [t.to(DEVICE) for t in (torch.tensor([SEED - 2**64]), ids, torch.tensor([STEP]))]
    block = ELEMENTS if DEVICE == "cpu" else 512
    posterior_kernel.philox_normal[(SAMPLES * ELEMENTS // block,)](z, *key, ELEMENTS, WIDE=False, BLOCK=block)
    counter = (torch.arange(ELEMENTS // 4)[None], STEP, (ids & 0xFFFF_FFFF)[:, None], (ids >> 32)[:, None])
    w0, w1, w2, w3 = philox_4x32(counter, (SEED & 0xFFFF_FFFF, SEED >> 32))
    exact = np.stack([*in_double(w0, w1), *in_double(w2, w3)], axis=-1)
    return z.cpu(), exact.reshape(SAMPLES, ELEMENTS)


def test_millions_are_within_a_few_ulp_of_double(drawn):
    error = ulps(*drawn)
    assert error.max() < 5
    assert error.mean() < 0.6


def test_the_normal_law_and_its_tails(drawn):
    stats = pytest.importorskip("scipy.stats")
    z = drawn[0].numpy().astype(np.float64).ravel()
    assert abs(z.mean()) < 4 / z.size**0.5
    assert abs(z.var() - 1) < 4 * (2 / z.size) ** 0.5
    assert abs(stats.skew(z)) < 4 * (6 / z.size) ** 0.5
    assert abs(stats.kurtosis(z)) < 4 * (24 / z.size) ** 0.5
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for limit in (2.5, 3, 3.5, 4, 4.5):
        for count in ((z > limit).sum(), (z < -limit).sum()):
            assert 1e-4 < stats.poisson.cdf(count, stats.norm.sf(limit) * z.size) < 1 - 1e-4
    beyond = np.abs(z)[np.abs(z) > 3]  # the law of the tail itself, not only its weight
    assert stats.kstest(beyond, lambda v: 1 - stats.norm.sf(v) / stats.norm.sf(3)).pvalue > 1e-3
    assert 4.7 < np.abs(z).max() < 6.77
    near_zero = np.abs(z) < 1e-3
    assert 1e-4 < stats.poisson.cdf(near_zero.sum(), z.size * (2 * stats.norm.cdf(1e-3) - 1)) < 1 - 1e-4
