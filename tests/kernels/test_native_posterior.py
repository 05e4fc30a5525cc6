"""The native update against its definition: bit for bit in float32, and within rounding of float64."""

import warnings

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sampler.posterior import Guided, State, posterior, posterior_of

given, st = pytest.importorskip("hypothesis").given, pytest.importorskip("hypothesis.strategies")
NAN, INF = float("nan"), float("inf")
SHAPES = st.lists(st.integers(1, 19), min_size=1, max_size=4) | st.sampled_from([[1, 1, 28, 28], [2, 3, 32, 32]])


def drawn(shape: list[int], seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 2 for _ in range(count)]


def as_double(out: Tensor | Guided) -> Tensor | Guided:
    return Guided(out[0].double(), out[1].double(), out[2]) if isinstance(out, Guided) else out.double()


def magnitude(x: Tensor, out: Tensor | Guided, z: Tensor, row: Tensor) -> Tensor:
    """The update with every term made positive: what a rounding error is relative to."""
    if isinstance(out, Guided):
        out = out.unconditional.abs() * (1 + abs(out.scale)) + abs(out.scale) * out.conditional.abs()
    a, b, c, d, sigma, _ = row.abs()
    return c * (a * x.abs() + b * out.abs()) + d * x.abs() + sigma * z.abs()


@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32),
    which=st.integers(0, 24),
    scale=st.sampled_from([None, 1.0, 2.3]),
)
def test_it_is_the_definition(native, rows, shape, seed, which, scale):
    x, out, other, z = drawn(shape, seed, 4)
    out = out if scale is None else Guided(out, other, scale)
    row = rows[which]
    result = native.native_posterior(x, out, z, row)
    assert torch.equal(result, posterior(x, out, z, row))
    exact = posterior(x.double(), as_double(out), z.double(), row.double())
    assert bool(((result - exact).abs() <= 5 * 2.0**-24 * magnitude(x, out, z, row)).all())


@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32),
    which=st.integers(0, 14),
    scale=st.sampled_from([None, 2.3]),
    drawn_inside=st.booleans(),
)
def test_with_memory_it_is_the_definition(native, memory_rows, shape, seed, which, scale, drawn_inside):
    x, out, other, z, before = drawn(shape, seed, 5)
    out, row = out if scale is None else Guided(out, other, scale), memory_rows[which]
    ids = torch.arange(shape[0])
    if drawn_inside:  # held against its own noise, which the update without memory shows
        still = torch.tensor([0, 0, 0, 0, 1, 1.0])
        z = native.native_posterior_drawn(x, out, seed, ids, 7, still)
    expected = posterior_of(State(x, before), out, z, row)
    if row[6] == 0:
        before = torch.full_like(before, NAN)  # is not read
    to, x0, kept = torch.full_like(x, NAN), torch.full_like(x, NAN), before.clone()

    def update(x, to, before, x0):
        if drawn_inside:
            return native.native_posterior_drawn(x, out, seed, ids, 7, row, to, before, x0)
        return native.native_posterior(x, out, z, row, to, before, x0)

    assert update(x, to, before, x0) is to
    assert torch.equal(before.isnan(), kept.isnan())
    state = x.clone()
    update(state, state, before, before)  # in place
    for result, estimate in ((to, x0), (state, before)):
        assert torch.equal(result, expected.x)
        assert torch.equal(estimate, expected.before)


def test_memory_of_another_form(native, memory_rows):
    """A transposed history is copied; half of a memory is named."""
    x, out, z, before = drawn([2, 3, 8, 8], 3, 4)
    row, turned = memory_rows[6], before.transpose(2, 3).contiguous().transpose(2, 3)
    x0 = torch.empty_like(x)
    expected = posterior_of(State(x, before), out, z, row)
    assert torch.equal(native.native_posterior(x, out, z, row, None, turned, x0), expected.x)
    assert torch.equal(x0, expected.before)
    with pytest.raises(ValueError, match="before and x0 belong together"):
        native.native_posterior(x, out, z, row, None, before)
    with pytest.raises(ValueError, match=r"row must hold 7 coefficients \(a, b, c, d, σ, bound, g\)"):
        native.native_posterior(x, out, z, row[:6], None, before, x0)
    with pytest.raises(ValueError, match="row must hold 6 coefficients"):
        native.native_posterior(x, out, z, row)
    with pytest.raises(ValueError, match="before has the shape"):
        native.native_posterior(x, out, z, row, None, before[:1], x0)
    with pytest.raises(ValueError, match="x0 must be contiguous"):
        native.native_posterior(x, out, z, row, None, before, turned)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("bound", [1.0, INF])
def test_what_is_not_finite_comes_through(native, rows, guided, bound):
    """NaN and infinity in either input, at each place of a vector and of its remainder."""
    row = rows[2].clone()
    row[5] = bound
    for place in range(21):
        for bad in (NAN, INF, -INF):
            x, out, other, z = drawn([21], place, 4)
            (x, out, other, z)[place % 4][place] = bad
            whole = Guided(out, other, 1.5) if guided else out
            result = native.native_posterior(x, whole, z, row)
            torch.testing.assert_close(result, posterior(x, whole, z, row), rtol=0, atol=0, equal_nan=True)
            if bad != bad and (guided or place % 4 != 2):
                assert result.isnan().nonzero().tolist() == [[place]]


@pytest.mark.parametrize("scale", [None, 2.3])
def test_noise_without_weight_is_not_read(native, rows, scale):
    x, out, other, z = drawn([2, 3, 9, 9], 1, 4)
    whole, row = out if scale is None else Guided(out, other, scale), rows[2].clone()
    row[4] = 0
    expected = posterior(x, whole, z, row)
    assert torch.equal(native.native_posterior(x, whole, torch.full_like(z, NAN), row), expected)


def test_destination(native, rows):
    x, out, z = drawn([3, 1, 9, 9], 1, 3)
    expected = posterior(x, out, z, rows[2])
    poisoned = torch.full_like(x, NAN)
    assert native.native_posterior(x, out, z, rows[2], poisoned) is poisoned
    assert torch.equal(poisoned, expected)
    for place in (x, out, z):  # any input may be overwritten
        inputs = [tensor.clone() if tensor is not place else place for tensor in (x, out, z)]
        kept = place.clone()
        assert torch.equal(native.native_posterior(*inputs, rows[2], place), expected)
        place.copy_(kept)


def test_inputs_are_left_alone(native, rows):
    inputs = drawn([2, 3, 8, 8], 2, 3)
    copies = [tensor.clone() for tensor in inputs]
    native.native_posterior(*inputs, rows[2])
    native.native_posterior_drawn(inputs[0], inputs[1], 1, torch.arange(2), 3, rows[2])
    assert all(torch.equal(*pair) for pair in zip(inputs, copies, strict=True))


def test_strided_inputs(native, rows):
    """Channels-last, half of the channels of a wider output, a transposed state, a row in a table."""
    x, z = drawn([2, 3, 8, 6], 3, 2)
    wide = drawn([2, 6, 8, 6], 4, 1)[0]
    for out in (wide[:, :3], wide[:, 3:].to(memory_format=torch.channels_last)):
        expected = posterior(x, out, z, rows[2])
        assert torch.equal(native.native_posterior(x, out, z, rows[2]), expected)
        turned = x.transpose(2, 3).contiguous().transpose(2, 3)
        result = native.native_posterior(turned, Guided(out, wide[:, :3], 0.0), z, rows.t().contiguous().t()[2])
        assert torch.equal(result, posterior(x, wide[:, :3], z, rows[2]))
        assert result.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_predictions_become_float32(native, rows, dtype):
    x, out, other, z = drawn([2, 1, 5, 5], 5, 4)
    out, other = out.to(dtype), other.to(dtype)
    expected = posterior(x, Guided(out.float(), other.float(), 3.0), z, rows[2])
    assert torch.equal(native.native_posterior(x, Guided(out, other, 3.0), z, rows[2]), expected)
    expected = posterior(x, out.float(), z, rows[2])
    assert torch.equal(native.native_posterior(x, out, z, rows[2].double()), expected)


def test_an_empty_batch(native, rows):
    x = torch.empty(0, 3, 4, 4)
    assert native.native_posterior(x, x, x, rows[0]).shape == x.shape
    assert native.native_posterior_drawn(x, x, 1, torch.arange(0), 0, rows[0]).shape == x.shape


def test_misuse_is_named(native, rows):
    x, row, ids = torch.zeros(2, 3), rows[0], torch.arange(2)
    with pytest.raises(ValueError, match=r"x is torch\.float64 .* takes torch\.float32"):
        native.native_posterior(x.double(), x.double(), x.double(), row)
    with pytest.raises(ValueError, match=r"x is torch\.bfloat16"):
        native.native_posterior_drawn(x.bfloat16(), x, 1, ids, 0, row)
    with pytest.raises(ValueError, match=r"out has the shape \[3\], but x has \[2, 3\]"):
        native.native_posterior(x, x[0], x, row)
    with pytest.raises(ValueError, match=r"out\.unconditional has the shape"):
        native.native_posterior(x, Guided(x, x[:1], 1.0), x, row)
    with pytest.raises(ValueError, match="z is on meta"):
        native.native_posterior(x, x, x.to("meta"), row)
    with pytest.raises(ValueError, match="row must hold 6 coefficients"):
        native.native_posterior(x, x, x, row[:5])
    with pytest.raises(ValueError, match="row is on meta"):
        native.native_posterior(x, x, x, row.to("meta"))
    with pytest.raises(ValueError, match="destination must be contiguous"):
        native.native_posterior(x, x, x, row, torch.zeros(3, 2).t())
    with pytest.raises(ValueError, match=r"sample_ids must be \[2\] torch\.int64"):
        native.native_posterior_drawn(x, x, 1, ids[:1], 0, row)
    with pytest.raises(ValueError, match="seed -1 is outside"):
        native.native_posterior_drawn(x, x, -1, ids, 0, row)


def test_what_is_no_dense_tensor_of_pytorch_is_refused(native, rows):
    """The kernel looks into the tensors itself, so nothing may reach it whose memory is elsewhere, or none."""
    x, ids = torch.zeros(2, 3), torch.arange(2)
    with FakeTensorMode():
        fake = torch.zeros(2, 3)
    with warnings.catch_warnings():  # a prototype, it says
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(3)])
    for strange in (x.to_sparse(), torch.zeros(2, 3).to_mkldnn(), fake, nested):
        for arguments in ((strange, x, x), (x, strange, x), (x, x, strange)):
            with pytest.raises((ValueError, RuntimeError)):
                native.native_posterior(*arguments, rows[0], None)
        with pytest.raises((ValueError, RuntimeError)):
            native.native_posterior(x, x, x, rows[0], strange)
        with pytest.raises((ValueError, RuntimeError)):
            native.native_posterior_drawn(x, strange, 1, ids, 0, rows[0])
    assert not x.any()


def test_a_view_that_means_its_negative(native, rows):
    x, out, z = drawn([2, 1, 5, 5], 6, 3)
    expected = posterior(-x, -out, -z, -rows[2])
    negated = [torch._neg_view(tensor) for tensor in (x, out, z, rows[2])]
    assert torch.equal(native.native_posterior(*negated), expected)
    with pytest.raises(ValueError, match="no dimension of samples"):
        native.native_posterior_drawn(torch.tensor(1.0), torch.tensor(1.0), 1, torch.arange(1), 0, rows[2])
