"""The Triton kernel against its definition; run by test_fused_posterior.py in a process of its own.

Triton decides when a kernel is imported whether the interpreter runs it: then these tensors are on the CPU.
"""

import os

import pytest
import torch
import triton
import triton.language as tl

from kernels import philox
from kernels.fused_posterior import available, fused_posterior, fused_posterior_drawn
from sampler.noise import philox_4x32, philox_normal
from sampler.posterior import Guided, posterior

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
NAN, INF = float("nan"), float("inf")
SHAPES = [(2, 2, 16, 16), (2, 3, 17, 11), (3, 7), (1,)]


def inputs(shape: tuple[int, ...], count: int) -> tuple[torch.Tensor, ...]:
    return tuple((torch.randn(count, *shape, generator=torch.Generator().manual_seed(3)) * 2).to(DEVICE))


@pytest.fixture
def row(rows) -> torch.Tensor:
    """A row with noise."""
    return rows[2].to(DEVICE, copy=True)


def test_it_is_available():
    assert available(DEVICE) is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", [0, 7, 17])
def test_it_is_the_definition(shape, which, rows):
    x, out, other, z = inputs(shape, 4)
    for whole in (out, Guided(out, other, 2.3)):
        row = rows[which].to(DEVICE)
        assert torch.equal(fused_posterior(x, whole, z, row), posterior(x, whole, z, row))


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn(shape, row):
    x, out, other = inputs(shape, 3)
    seed, ids, step = (
        2**63 + 5,
        (torch.arange(shape[0]) * 7 + 2**33).to(DEVICE),
        torch.tensor([400]).to(DEVICE),
    )
    z = philox_normal(seed, ids, 400, x[0].numel()).reshape(shape)
    bits = torch.tensor([seed - 2**64]).to(DEVICE)
    for whole in (out, Guided(out, other, 2.3)):
        expected = posterior(x, whole, z, row)
        result = fused_posterior_drawn(x, whole, seed, ids, step, row)
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)
        assert torch.equal(result, fused_posterior_drawn(x, whole, bits, ids, 400, row))
        quiet = row * torch.tensor([1, 1, 1, 1, 0, 1]).to(DEVICE)
        assert torch.equal(fused_posterior_drawn(x, whole, seed, ids, step, quiet), posterior(x, whole, z, quiet))


@triton.jit
def _words(destination, seed, sample_id, step, COUNTERS: tl.constexpr):
    blocks = tl.arange(0, COUNTERS)
    w0, w1, w2, w3 = philox.words(tl.load(seed), tl.load(sample_id), tl.load(step), blocks)
    tl.store(destination + blocks * 4, w0.to(tl.int64))
    tl.store(destination + blocks * 4 + 1, w1.to(tl.int64))
    tl.store(destination + blocks * 4 + 2, w2.to(tl.int64))
    tl.store(destination + blocks * 4 + 3, w3.to(tl.int64))


@pytest.mark.parametrize(("seed", "sample_id", "step"), [(0, 0, 0), (2**64 - 2, 2**63 - 1, 999), (77, 5, 2**31)])
def test_words(seed, sample_id, step):
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


def test_normals_against_double():
    """Also of the smallest, the largest and quarter-turn words."""
    edges = torch.tensor([0, 1, 127, 128, 2**29, 2**30, 2**31, 3 * 2**30, 2**32 - 128, 2**32 - 1])
    edges = torch.cat([edges, (edges - 1).clamp(min=0), (edges + 1).clamp(max=2**32 - 1)])
    words = torch.randint(2**32, (2, 4096), generator=torch.Generator().manual_seed(1))
    words[:, : len(edges) ** 2] = torch.cartesian_prod(edges, edges).T
    z = torch.empty(2, 4096, device=DEVICE)
    _box_muller[(1,)](z[0], z[1], *words.to(DEVICE), N=4096)
    u = (words[0].float() * 2**-32 + 2**-33).double()
    angle = (words[1].float() * (2**-32 * 2 * torch.pi)).double()
    radius = torch.sqrt(-2 * torch.log(u))
    torch.testing.assert_close(z[0].cpu().double(), radius * torch.cos(angle), rtol=0, atol=1.5e-6)
    torch.testing.assert_close(z[1].cpu().double(), radius * torch.sin(angle), rtol=0, atol=1.5e-6)


@pytest.mark.parametrize("bound", [1.0, INF])
def test_what_is_not_finite_comes_through(bound, row):
    row[5] = bound
    for bad in (NAN, INF, -INF):
        x, out, other, z = inputs((2, 300), 4)
        x[0, 3], out[0, 299], other[1, 0], z[1, 7] = bad, bad, bad, bad
        for whole in (out, Guided(out, other, 1.5)):
            result, expected = fused_posterior(x, whole, z, row), posterior(x, whole, z, row)
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
        drawn = fused_posterior_drawn(x, Guided(out, other, 1.5), 1, torch.arange(2).to(DEVICE), 3, row)
        if bad != bad:
            assert drawn.isnan().nonzero().tolist() == [[0, 3], [0, 299], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_combined_in_float32(dtype, row):
    x, out, other, z = inputs((2, 3, 8, 8), 4)
    out, other = out.to(dtype), other.to(dtype)
    assert torch.equal(fused_posterior(x, out, z, row), posterior(x, out, z, row))
    expected = posterior(x, Guided(out.float(), other.float(), 2.5), z, row)
    assert torch.equal(fused_posterior(x, Guided(out, other, 2.5), z, row), expected)


def test_strided_predictions(row):
    x, z = inputs((2, 3, 8, 6), 2)
    wide = inputs((2, 6, 8, 6), 1)[0]
    halves = [
        wide[:, :3],
        wide[:, 3:].contiguous(memory_format=torch.channels_last),
        wide[:, :3].mT.contiguous().mT,
    ]
    for out in halves:
        assert torch.equal(fused_posterior(x, out, z, row), posterior(x, out, z, row))
        for other in halves:
            guided = Guided(out, other, 2.5)
            assert torch.equal(fused_posterior(x, guided, z, row), posterior(x, guided, z, row))


def test_an_empty_batch(row):
    x = torch.empty(0, 3, 4, 4, device=DEVICE)
    assert fused_posterior(x, x, x, row).shape == x.shape


def test_misuse_is_named(row):
    x, ids = torch.zeros(2, 3, device=DEVICE), torch.arange(2).to(DEVICE)
    with pytest.raises(ValueError, match=r"x is torch\.float16"):
        fused_posterior(x.half(), x, x, row)
    with pytest.raises(ValueError, match="out has the shape"):
        fused_posterior(x, x[:1], x, row)
    with pytest.raises(ValueError, match=r"row must be \[6\] torch\.float32"):
        fused_posterior(x, x, x, row.double())
    with pytest.raises(ValueError, match=r"sample_ids must be \[2\] torch\.int64"):
        fused_posterior_drawn(x, x, 1, ids.int(), 0, row)
    with pytest.raises(ValueError, match=r"step must be one torch\.int64"):
        fused_posterior_drawn(x, x, 1, ids, ids, row)
    with pytest.raises(ValueError, match="seed -1 is outside"):
        fused_posterior_drawn(x, x, -1, ids, 0, row)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="a graph is a GPU's")
def test_a_captured_graph_reads_seed_step_and_row_anew(row, rows):
    x, out = inputs((2, 3, 8, 8), 2)
    ids, seed, step = (torch.tensor(v, device=DEVICE) for v in ([4, 9], [1], [5]))
    fused_posterior_drawn(x, out, seed, ids, step, row)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = fused_posterior_drawn(x, out, seed, ids, step, row)
    seed.fill_(2), step.fill_(6), row.copy_(rows[7]), ids.add_(1)
    graph.replay()
    assert torch.equal(result, fused_posterior_drawn(x, out, 2, ids, 6, rows[7].to(DEVICE)))
