"""The forward process: what betas are taken, and what x_t is made of."""

import math

import pytest
import torch

from sampler import schedule as schedules
from sampler.errors import UsageError
from sampler.variants import LIMITED


def test_linear(schedule):
    assert schedule.steps == 1000
    assert schedule.betas.dtype is torch.float64
    assert float(schedule.betas[0]) == pytest.approx(1e-4)
    assert float(schedule.betas[-1]) == pytest.approx(0.02)
    torch.testing.assert_close(schedule.betas.diff(), torch.full((999,), (0.02 - 1e-4) / 999).double())


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
def test_signal_left_is_the_product_of_what_each_step_keeps(make):
    schedule = make(200)
    left = 1.0
    for beta, alphas_cumprod in zip(schedule.betas.tolist(), schedule.alphas_cumprod.tolist(), strict=True):
        left *= 1 - beta
        assert alphas_cumprod == pytest.approx(left, rel=1e-12)


def test_cosine():
    schedule = schedules.cosine(1000)

    def level(t):  # Nichol & Dhariwal (2021), Eq. 17
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (1, 10, 500, 900, 990):
        assert float(schedule.alphas_cumprod[t - 1]) == pytest.approx(level(t) / level(0), rel=1e-9)
    assert float(schedule.betas.max()) == 0.999


def test_add_noise_has_the_law_of_the_forward_process(schedule):
    n = 100_000
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([10, 400, 999])
    x0 = torch.full((3, n), 0.7)
    x = schedule.add_noise(x0, t, torch.randn(3, n, generator=generator)).double()
    left = schedule.alphas_cumprod[t]
    for row, alphas_cumprod in zip(x, left.tolist(), strict=True):
        variance = 1 - alphas_cumprod
        assert abs(float(row.mean()) - 0.7 * alphas_cumprod**0.5) < 4 * (variance / n) ** 0.5
        assert abs(float(row.var()) - variance) < 4 * variance * (2 / n) ** 0.5


def test_add_noise_takes_any_shape(schedule):
    for shape in ((2,), (2, 5), (2, 3, 4, 4)):
        x0, noise = torch.ones(2, *shape)
        x = schedule.add_noise(x0, torch.tensor([0, 999]), noise)
        assert x.shape == x0.shape
        assert x.dtype is x0.dtype
        left = schedule.alphas_cumprod[[0, 999]]
        torch.testing.assert_close(x.flatten(1)[:, 0] if x.dim() > 1 else x, (left.sqrt() + (1 - left).sqrt()).float())


def test_one_step_is_composed_of_many(schedule):
    """q(x_t | x_0) is what the steps q(x_t | x_{t-1}) give, in mean and variance."""
    mean, variance = 1.0, 0.0
    for beta, alphas_cumprod in zip(schedule.betas.tolist(), schedule.alphas_cumprod.tolist(), strict=True):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        assert mean == pytest.approx(alphas_cumprod**0.5, rel=1e-9)
        assert variance == pytest.approx(1 - alphas_cumprod, rel=1e-9)


def test_the_limited_interval_of_guidance(schedule):
    """On the shipped models' schedule, the timesteps at which stored results were guided."""
    low, high = LIMITED
    on = [t for t, level in enumerate(schedule.noise_levels.tolist()) if low < level <= high]
    assert on == list(range(70, 470))


@pytest.mark.parametrize(
    ("betas", "sentence"),
    [
        ([0.1, 0.0], r"betas\[1\] = 0.0 is outside \(0, 1\)"),
        ([-0.1, 0.2], r"betas\[0\] = -0.1 is outside"),
        ([0.1, 1.5], r"betas\[1\] = 1.5 is outside"),
        ([1.0, 0.5], r"betas\[0\] = 1.0 is outside .*the last may be exactly 1"),
        ([0.1, math.nan, 0.1], r"betas\[1\] = nan is outside"),
        ([0.1, math.nan], r"betas\[1\] = nan is outside"),
        ([math.inf, 0.1], r"betas\[0\] = inf is outside"),
        ([], r"a vector of at least one number, got shape \[0\]"),
        ([[0.1, 0.2]], r"a vector of at least one number, got shape \[1, 2\]"),
        (0.1, r"a vector of at least one number, got shape \[\]"),
    ],
)
def test_bad_betas_are_refused(betas, sentence):
    with pytest.raises(UsageError, match=sentence):
        schedules.from_betas(betas)


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
@pytest.mark.parametrize("steps", [0, -5])
def test_a_schedule_needs_a_step(make, steps):
    with pytest.raises(UsageError, match=f"at least 1 timestep, got {steps}"):
        make(steps)


def test_the_betas_given_are_copied():
    betas = torch.tensor([0.1, 0.2], dtype=torch.float64)
    schedule = schedules.from_betas(betas)
    betas[0] = 5.0
    assert float(schedule.betas[0]) == pytest.approx(0.1)
