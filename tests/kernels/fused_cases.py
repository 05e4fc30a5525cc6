"""The Triton kernel against its definition; run by test_fused_posterior.py in a process of its own.

Triton decides when a kernel is imported whether the interpreter runs it: then these tensors are on the CPU.
"""

import os
from dataclasses import dataclass

import pytest
import torch

from bench.update.ways import WAYS, Inputs, verify
from kernels import posterior_kernel
from kernels.fused_posterior import available, fused_normal, fused_posterior, fused_posterior_drawn
from sampler.noise import NoiseKey
from sampler.posterior import Feed, Guided, State, posterior, posterior_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
NAN, INF = float("nan"), float("inf")
SHAPES = [(1,), (3, 7), (2, 1, 28, 28), (2, 3, 17, 11), (1, 3, 16, 32), (5, 4, 1, 3)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fresh memory holds NaN, so that an element that is not written shows."""
    fresh = torch.empty_like

    def poison(like, **how):
        made = fresh(like, **how)
        return made.fill_(NAN) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty_like", poison)


@pytest.fixture(autouse=True)
def untuned(request, monkeypatch):
    """The first choice of the tuner, without measuring: fifty kinds of inputs would take minutes of a device."""
    if "tuned" not in request.keywords:
        monkeypatch.setattr(posterior_kernel.posterior, "configs", posterior_kernel.posterior.configs[:1])


def inputs(shape: tuple[int, ...], count: int, seed: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator) * 2).to(DEVICE) for _ in range(count)]


@pytest.fixture
def row(rows) -> torch.Tensor:
    """A row with noise."""
    return rows[2].to(DEVICE, copy=True)


def test_it_is_available():
    assert available(DEVICE) is None


@dataclass
class Case:
    """Inputs of one update, drawn at random from what the kernel takes."""

    x: torch.Tensor
    out: torch.Tensor | Guided
    key: NoiseKey
    row: torch.Tensor


LAYOUTS = {
    "contiguous": lambda t: t,
    "channels-last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "half the channels": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]] if t.dim() > 1 else t,
    "channels-last half": lambda t: (
        torch.cat([t, t], dim=1).contiguous(memory_format=torch.channels_last)[:, : t.shape[1]] if t.dim() == 4 else t
    ),
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() == 4 else t,
}


def drawn_case(seed: int, rows: torch.Tensor) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def pick(from_: list):
        return from_[int(torch.randint(len(from_), (), generator=generator))]

    x, conditional, unconditional = inputs(pick(SHAPES), 3, seed)
    dtype = pick(DTYPES)
    conditional, unconditional = (LAYOUTS[pick(list(LAYOUTS))](t.to(dtype)) for t in (conditional, unconditional))
    out = pick([conditional, Guided(conditional, unconditional, 2.3)])
    ids = torch.randint(2**62, (len(x),), generator=generator).to(DEVICE)
    step = pick([7, torch.tensor([400]).to(DEVICE)])
    return Case(x, out, NoiseKey(pick([3, 2**63 + 5]), ids, step), pick(list(rows)).to(DEVICE))


@pytest.mark.parametrize("seed", range(40))
def test_error_against_float64(seed, rows):
    """At most twice that of plain PyTorch in float32, with every capability; the state that is fed is the state."""
    case = drawn_case(seed, rows)
    x, out, key, row = case.x, case.out, case.key, case.row
    bits = key.seed - (1 << 64) if key.seed >= 1 << 63 else key.seed
    z = key._replace(seed=bits).draw(x)
    wide = Guided(out[0].double(), out[1].double(), out[2]) if isinstance(out, Guided) else out.double()
    exact = posterior(x.double(), wide, z.double(), row.double())
    plain = (posterior(x, out, z, row).double() - exact).abs().max()
    floor = 4 * torch.finfo(torch.float32).eps * exact.abs().max()

    def check(result):
        assert result.shape == x.shape
        assert (result.double() - exact).abs().max() <= 2 * plain + floor

    check(fused_posterior(x, out, z, row))
    check(fused_posterior_drawn(x, out, key, row))
    feed = Feed(1 + seed % 2, DTYPES[seed % 3])
    fed = torch.empty_like(feed.of(x))
    state = fused_posterior_drawn(x, out, key, row, feed=fed)
    check(state)
    # the interpreter cuts bfloat16 off where the device rounds
    tolerance = 2**-7 if INTERPRETED and feed.dtype is torch.bfloat16 else 0
    torch.testing.assert_close(fed.float(), feed.of(state).float(), rtol=tolerance, atol=0)


@pytest.mark.parametrize("seed", range(40, 50))
def test_in_place_is_out_of_place(seed, rows):
    case = drawn_case(seed, rows)
    x, out, key, row = case.x, case.out, case.key, case.row
    first, fed = Feed(2, torch.float16).of(x), Feed(2, torch.float16).of(x)
    expected = fused_posterior_drawn(x, out, key, row, feed=first)
    z, state = key._replace(seed=3).draw(x), x.clone()
    noisy = fused_posterior(x, out, z, row)
    assert fused_posterior(state, out, z, row, state) is state
    assert torch.equal(state, noisy)
    state = x.clone()
    assert fused_posterior_drawn(state, out, key, row, state, feed=fed) is state
    assert torch.equal(state, expected)
    assert torch.equal(fed, first)


@pytest.mark.parametrize("seed", range(50, 65))
def test_with_memory_it_is_the_definition(seed, rows, memory_rows):
    """Bit for bit where its noise is given; drawn and fed, it keeps the same estimate; over its own inputs, too."""
    case, row = drawn_case(seed, rows), memory_rows[seed - 50].to(DEVICE)
    x, out, key = case.x, case.out, case.key
    z, before = inputs(x.shape, 2, seed)
    expected = posterior_of(State(x, before), out, z, row)
    x0, place = torch.empty_like(x), before.clone()
    result = fused_posterior(x, out, z, row, before=before, x0=x0)
    state = x.clone()
    assert fused_posterior(state, out, z, row, state, before=place, x0=place) is state
    for found, estimate in ((result, x0), (state, place)):
        assert torch.equal(found, expected.x)
        assert torch.equal(estimate, expected.before)
    place, fed = before.clone(), torch.empty_like(torch.cat([x, x]))
    drawn = fused_posterior_drawn(x, out, key, row, before=place, x0=place, feed=fed)
    alone = torch.empty_like(x)
    assert torch.equal(drawn, fused_posterior_drawn(x, out, key, row, before=before, x0=alone))
    assert torch.equal(fed, torch.cat([drawn, drawn]))
    assert torch.equal(place, alone)
    torch.testing.assert_close(place, expected.before, rtol=0, atol=0)


def test_half_a_memory_is_named(memory_rows):
    x, out, before = inputs((2, 3), 3)
    row = memory_rows[6].to(DEVICE)
    with pytest.raises(ValueError, match="before and x0 belong together"):
        fused_posterior(x, out, x, row, x0=before)
    with pytest.raises(ValueError, match=r"row must be \[7\]"):
        fused_posterior(x, out, x, row[:6], before=before, x0=before)
    with pytest.raises(ValueError, match=r"x0 shares memory .* only before itself"):
        fused_posterior(x, out, before.clone(), row, torch.empty_like(x), before=before, x0=out)
    with pytest.raises(ValueError, match="destination shares memory"):
        fused_posterior(x, out, before.clone(), row, before, before=before, x0=before)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no clock to choose by")
@pytest.mark.tuned
def test_the_tuner_leaves_what_it_writes_in_place(rows):
    """It runs each choice many times on the same memory, and puts the state back in between."""
    for shape in [(2, 3, 64, 64), (64, 3, 128, 128)]:
        x, out, other = inputs(shape, 3)
        guided, key = Guided(out, other, 2.3), NoiseKey(3, torch.arange(len(x), device=DEVICE), 7)
        row = rows[2].to(DEVICE)
        tuned_in_place = x.clone()
        fused_posterior_drawn(tuned_in_place, guided, key, row, tuned_in_place)
        assert torch.equal(tuned_in_place, fused_posterior_drawn(x, guided, key, row))
    assert len(posterior_kernel.posterior.cache) >= 2


FUSED = [name for name, way in WAYS.items() if way.needs == "cuda"]


@pytest.mark.parametrize("name", FUSED)
def test_what_the_benchmark_times_is_the_definition(name):
    verify(WAYS[name], WAYS[name].make(DEVICE), Inputs.draw((2, 3, 16, 16), DEVICE))


def test_it_is_the_definition_bit_for_bit(rows):
    for shape in SHAPES:
        x, out, other, z = inputs(shape, 4)
        for row in rows[::3].to(DEVICE):
            for whole in (out, Guided(out, other, 2.3)):
                assert torch.equal(fused_posterior(x, whole, z, row), posterior(x, whole, z, row))


def test_nothing_is_drawn_where_sigma_is_zero(row):
    x, out = inputs((2, 3, 8, 8), 2)
    row[4] = 0
    key = NoiseKey(1, torch.arange(2).to(DEVICE), 5)
    assert torch.equal(fused_posterior_drawn(x, out, key, row), posterior(x, out, torch.zeros_like(x), row))


@pytest.mark.parametrize("bound", [1.0, INF])
def test_what_is_not_finite_comes_through(bound, row):
    row[5] = bound
    key = NoiseKey(1, torch.arange(2).to(DEVICE), 3)
    for bad in (NAN, INF, -INF):
        x, out, other, z = inputs((2, 300), 4)
        x[0, 3], out[0, 299], other[1, 0], z[1, 7] = bad, bad, bad, bad
        for whole in (out, Guided(out, other, 1.5)):
            result, expected = fused_posterior(x, whole, z, row), posterior(x, whole, z, row)
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
        fed = torch.empty_like(x, dtype=torch.float16)
        drawn = fused_posterior_drawn(x, Guided(out, other, 1.5), key, row, feed=fed)
        if bad != bad:
            for tensor in (drawn, fed):
                assert tensor.isnan().nonzero().tolist() == [[0, 3], [0, 299], [1, 0]]


def test_an_empty_batch(row):
    x = torch.empty(0, 3, 4, 4, device=DEVICE)
    assert fused_posterior(x, x, x, row).shape == x.shape


def test_offsets_beyond_2_to_the_31(row, monkeypatch):
    """The 64-bit arithmetic, taken at a size that fits; its width is read from the compiled code elsewhere."""
    from kernels import fused_posterior as module

    monkeypatch.setattr(module, "NARROW", 100)
    x, z, wide = *inputs((2, 3, 8, 6), 2), inputs((2, 6, 8, 6), 1)[0]
    for out in (wide[:, :3], wide.contiguous(memory_format=torch.channels_last)[:, :3]):
        assert torch.equal(fused_posterior(x, out, z, row), posterior(x, out, z, row))


def test_misuse_is_named(row):
    x, ids = torch.zeros(2, 3, device=DEVICE), torch.arange(2).to(DEVICE)
    key = NoiseKey(1, ids, 0)
    with pytest.raises(ValueError, match=r"x is torch\.float16"):
        fused_posterior(x.half(), x, x, row)
    with pytest.raises(ValueError, match="out has the shape"):
        fused_posterior(x, x[:1], x, row)
    with pytest.raises(ValueError, match=r"row must be \[6\] torch\.float32"):
        fused_posterior(x, x, x, row.double())
    with pytest.raises(ValueError, match=r"sample_ids must be \[2\] torch\.int64"):
        fused_posterior_drawn(x, x, key._replace(sample_ids=ids.int()), row)
    with pytest.raises(ValueError, match=r"step must be one torch\.int64"):
        fused_posterior_drawn(x, x, key._replace(step=ids), row)
    with pytest.raises(ValueError, match="seed -1 is outside"):
        fused_posterior_drawn(x, x, key._replace(seed=-1), row)
    with pytest.raises(ValueError, match="input must be contiguous"):
        fused_posterior_drawn(x, x, key, row, feed=torch.zeros(6, 3, device=DEVICE))
    out = torch.zeros_like(x)
    for destination in (out, out.view(2, 3)):
        with pytest.raises(ValueError, match="destination shares memory"):
            fused_posterior(x, out, x, row, destination)
    with pytest.raises(ValueError, match="destination must be contiguous"):
        fused_posterior(x, x, x, row, torch.zeros(3, 2, device=DEVICE).T)


def test_the_noise_kernel_draws_the_key(rows):
    key = NoiseKey(9, torch.tensor([2**40, 5]).to(DEVICE), 77)
    for shape in [(2, 3, 17, 11), (2, 4)]:
        like = torch.empty(shape, device=DEVICE)
        torch.testing.assert_close(fused_normal(key, like), key.draw(like), rtol=1e-6, atol=0)


@pytest.mark.skipif(INTERPRETED, reason="a graph is a GPU's")
def test_a_captured_graph_reads_seed_step_and_row_anew(row, rows):
    x, out = inputs((2, 3, 8, 8), 2)
    ids, seed, step = (torch.tensor(v, device=DEVICE) for v in ([4, 9], [1], [5]))
    key = NoiseKey(seed, ids, step)
    fused_posterior_drawn(x, out, key, row)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = fused_posterior_drawn(x, out, key, row)
    seed.fill_(2), step.fill_(6), row.copy_(rows[7]), ids.add_(1)
    graph.replay()
    assert torch.equal(result, fused_posterior_drawn(x, out, NoiseKey(2, ids, 6), rows[7].to(DEVICE)))


@pytest.mark.skipif(INTERPRETED, reason="takes 25 GB")
def test_more_than_2_to_the_31_elements(row):
    if torch.cuda.mem_get_info()[0] < 36 * 2**30:
        pytest.skip("takes 34 GB of device memory")
    x = torch.zeros(1, 2**31 + 4096, device=DEVICE)
    x[0, -1], x[0, 2**31 - 1] = 1, 2
    out = torch.zeros_like(x, dtype=torch.float16)
    row.copy_(torch.tensor([0, 0, 0, 3.0, 0, 1]))
    fused_posterior_drawn(x, out, NoiseKey(1, torch.zeros(1, dtype=torch.int64, device=DEVICE), 0), row, x)
    assert [float(x[0, -1]), float(x[0, 2**31 - 1]), float(x.sum())] == [3, 6, 9]
