"""Data whose ideal denoiser is known: the samples' law is compared with exact moments, without training."""

import pytest
import torch
from torch import nn

from sampler import trajectory as trajectories
from sampler.noise import GeneratorNoise
from sampler.trajectory import ancestral, ddim, spaced, strided
from sampler.variants import REFERENCE, build, run

SHAPE = (300, 1, 10, 20)  # 60,000 independent numbers
N = 300 * 10 * 20
MEAN, STD = 0.6, 0.3


def draw(network, trajectory, seed=0):
    """Samples [N] float64 from a trajectory that starts in N(0, 1)."""
    noise = GeneratorNoise(torch.Generator().manual_seed(seed))
    x = run(build(REFERENCE, network), noise.draw(1000, torch.empty(SHAPE)), trajectory, noise)
    return x.double().flatten()


class GaussianDenoiser(nn.Module):
    """E[ε | x_t] where the data are N(MEAN, STD²): slope·x + offset, [T] each."""

    def __init__(self, schedule):
        super().__init__()
        left = schedule.alphas_cumprod
        total = left * STD**2 + 1 - left
        self.slope = (1 - left).sqrt() / total
        self.offset = -(1 - left).sqrt() * left.sqrt() * MEAN / total
        self.slope32, self.offset32 = self.slope.float(), self.offset.float()

    def forward(self, x, t, condition=None):
        return self.slope32[t[:1]] * x + self.offset32[t[:1]]


def exact_moments(network, trajectory):
    """Mean and variance of the result: every step is an affine map of x plus Gaussian noise."""
    mean, variance = 0.0, 1.0
    for t, row in zip(trajectory.timesteps, trajectory.rows.tolist(), strict=True):
        a, b, c, d, sigma, _ = row
        gain = c * (a - b * float(network.slope[t])) + d
        mean = gain * mean - c * b * float(network.offset[t])
        variance = gain**2 * variance + sigma**2
    return mean, variance


GAUSSIAN_CASES = {
    "ancestral-1000": lambda s: ancestral(s, clip=None),
    "ancestral-beta-1000": lambda s: ancestral(s, variance="beta", clip=None),
    "ancestral-20": lambda s: ancestral(s, spaced(s, 20), clip=None),
    "ancestral-beta-20": lambda s: ancestral(s, spaced(s, 20), variance="beta", clip=None),
    "ddim-0-20": lambda s: ddim(s, spaced(s, 20), eta=0.0, clip=None),
    "ddim-0.5-20": lambda s: ddim(s, spaced(s, 20), eta=0.5, clip=None),
    "ddim-0-250": lambda s: ddim(s, spaced(s, 250), eta=0.0, clip=None),
    "strided-20": lambda s: strided(s, spaced(s, 20), clip=None),
}


@pytest.mark.parametrize("case", GAUSSIAN_CASES)
def test_moments_of_a_gaussian(case, schedule):
    network, trajectory = GaussianDenoiser(schedule), GAUSSIAN_CASES[case](schedule)
    mean, variance = exact_moments(network, trajectory)
    x = draw(network, trajectory)
    assert abs(float(x.mean()) - mean) < 5 * (variance / N) ** 0.5
    assert abs(float(x.var()) - variance) < 5 * variance * (2 / N) ** 0.5
    third = ((x - x.mean()) / x.std()).pow(3).mean()
    assert abs(float(third)) < 5 * (6 / N) ** 0.5


def test_the_exact_moments_tell_samplers_apart(schedule):
    """Otherwise the test above could not fail: the variances lie more than five standard errors apart."""
    network = GaussianDenoiser(schedule)
    variances = [
        exact_moments(network, GAUSSIAN_CASES[case](schedule))[1] for case in GAUSSIAN_CASES if case.endswith("-20")
    ]
    for i, left in enumerate(variances):
        for right in variances[:i]:
            assert abs(left - right) > 5 * max(left, right) * (2 / N) ** 0.5


@pytest.mark.parametrize("steps", [1000, 250, 100])
@pytest.mark.parametrize("make", [ancestral, ddim])
def test_many_steps_reach_the_data(steps, make, schedule):
    """The error of discrete steps falls with their number: less than a hundredth of a sigma at 1,000."""
    network = GaussianDenoiser(schedule)
    mean, variance = exact_moments(network, make(schedule, spaced(schedule, steps), clip=None))
    assert abs(mean - MEAN) < 10 / steps * STD
    assert abs(variance**0.5 / STD - 1) < 25 / steps


@pytest.mark.parametrize("make", [ancestral, ddim, strided])
def test_a_point_is_hit_exactly(make, schedule):
    """Where the data are a single number, every sampler ends on it in any number of steps."""

    def network(x, t, condition=None):
        left = schedule.alphas_cumprod.float()[t[:1]]
        return (x - left.sqrt() * MEAN) / (1 - left).sqrt()

    trajectory = make(schedule, spaced(schedule, 7), clip=None)
    noise = GeneratorNoise(torch.Generator().manual_seed(0))
    predict = nn.Module()
    predict.forward = network
    x = run(build(REFERENCE, predict), noise.draw(1000, torch.empty(4, 1, 5, 5)), trajectory, noise)
    torch.testing.assert_close(x, torch.full_like(x, MEAN), rtol=0, atol=1e-5)


class MixtureDenoiser(nn.Module):
    """E[ε | x_t] of each number by itself where the data are a mixture of two Gaussians."""

    weights = torch.tensor([0.3, 0.7])
    means = torch.tensor([-0.7, 0.5])
    stds = torch.tensor([0.1, 0.2])

    def __init__(self, schedule):
        super().__init__()
        self.left = schedule.alphas_cumprod

    def forward(self, x, t, condition=None):
        left = float(self.left[t[0]])
        totals = left * self.stds**2 + 1 - left
        scores, logits = [], []
        for weight, mean, total in zip(self.weights, self.means, totals, strict=True):
            delta = (x - left**0.5 * mean) / total
            scores.append(delta)
            logits.append(weight.log() - total.log() / 2 - delta**2 * total / 2)
        share = torch.sigmoid(logits[1] - logits[0])
        return (1 - left) ** 0.5 * ((1 - share) * scores[0] + share * scores[1])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda s: ancestral(s, clip=None), id="ancestral-1000"),
        pytest.param(lambda s: ddim(s, spaced(s, 500), clip=None), id="ddim-500"),
    ],
)
def test_modes_of_a_mixture(make, schedule):
    """Shares, means and widths of both modes, within five standard errors and what discrete steps may add."""
    network = MixtureDenoiser(schedule)
    x = draw(network, make(schedule), seed=1)
    for upper, weight, mean, std in zip(
        (False, True), network.weights.tolist(), network.means.tolist(), network.stds.tolist(), strict=True
    ):
        mode = x[(x > -0.3) == upper]
        n = len(mode)
        assert abs(n / N - weight) < 5 * (weight * (1 - weight) / N) ** 0.5 + 0.002
        assert abs(float(mode.mean()) - mean) < 5 * std / n**0.5 + 0.01 * std
        assert abs(float(mode.std()) / std - 1) < 5 / (2 * n) ** 0.5 + 0.02


def test_the_samplers_agree_whatever_the_network_predicts(schedule):
    """ε, x0 and v of the same ideal denoiser give the same samples."""
    epsilon = GaussianDenoiser(schedule)

    class As(nn.Module):
        def __init__(self, prediction):
            super().__init__()
            self.prediction = prediction

        def forward(self, x, t, condition=None):
            e, left = epsilon.slope[t[:1]] * x + epsilon.offset[t[:1]], schedule.alphas_cumprod[t[:1]]
            x0 = (x - (1 - left).sqrt() * e) / left.sqrt()
            return {"epsilon": e, "x0": x0, "v": left.sqrt() * e - (1 - left).sqrt() * x0}[self.prediction]

    results = [
        draw(As(prediction), ancestral(schedule, spaced(schedule, 30), prediction=prediction, clip=None))
        for prediction in trajectories.PREDICTIONS
    ]
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-5)
