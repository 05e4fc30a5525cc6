"""The closed-form denoiser against quadrature and autograd, and the samplers against its exact moments."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sampler import schedule as schedules
from sampler import signal, trajectory
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.guidance import Condition, batched_cfg, sequential_cfg
from sampler.noise import GeneratorNoise
from sampler.posterior import State, combine
from sampler.signal import GaussianMixtureDenoiser
from sampler.variants import variant

SCHEDULE = schedules.linear()
MEANS = torch.tensor([[-0.6, 0.5], [0.7, 0.4], [0.1, -0.8]], dtype=torch.float64)
STDS = torch.tensor([0.10, 0.05, 0.15], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
T = (0, 1, 10, 150, 500, 999)


def mixture(prediction: str = "epsilon", means: Tensor = MEANS, **kwargs) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(means, STDS, WEIGHTS, SCHEDULE, prediction, **kwargs)


def planar_model(prediction: str = "epsilon"):
    return signal.model(MEANS, STDS, WEIGHTS, prediction=prediction, shape=(1, 1, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("t", T)
@pytest.mark.parametrize("label", [None, 1])
def test_it_is_the_posterior_expectation_found_by_quadrature(t, label):
    means = MEANS[:, :1]
    network = mixture(means=means)
    alpha = SCHEDULE.alphas_cumprod[t]
    signal_, noise = alpha.sqrt(), (1 - alpha).sqrt()
    x = torch.linspace(-1.2, 1.2, 7, dtype=torch.float64) * (signal_ + 2 * noise)
    x0 = torch.linspace(-3, 3, 400_001, dtype=torch.float64)
    weights = WEIGHTS if label is None else torch.nn.functional.one_hot(torch.tensor(label), 3)
    density = sum(w * Normal(m, s).log_prob(x0).exp() for w, m, s in zip(weights, means, STDS, strict=True))
    eps = (x[:, None] - signal_ * x0) / noise
    log_mass = density.log() + Normal(0.0, 1.0).log_prob(eps)
    mass = (log_mass - log_mass.amax(1, keepdim=True)).exp()
    mass = mass / mass.sum(1, keepdim=True)
    condition = None if label is None else torch.full((7,), label)
    epsilon_hat, x0_hat = network.expectations(x[:, None], torch.full((7,), t), condition)
    torch.testing.assert_close(epsilon_hat[:, 0], (mass * eps).sum(1), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(x0_hat[:, 0], mass @ x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", T)
def test_epsilon_is_the_score_of_the_noised_mixture(t):
    """Tweedie in 128 dimensions, with the density from torch.distributions and its gradient from autograd."""
    _, means = signal.signals()
    network = GaussianMixtureDenoiser(means, 0.1, None, SCHEDULE)
    alpha = SCHEDULE.alphas_cumprod[t]
    x0 = means + 0.1 * torch.randn(means.shape, generator=generator(), dtype=torch.float64)
    noise = torch.randn(means.shape, generator=generator(1), dtype=torch.float64)
    x = SCHEDULE.add_noise(x0, torch.full((6,), t), noise).requires_grad_()
    spread = (alpha * 0.1**2 + 1 - alpha).sqrt().expand_as(means)
    density = MixtureSameFamily(
        Categorical(torch.ones(6, dtype=torch.float64)),
        Independent(Normal(alpha.sqrt() * means, spread), 1),
    )
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    epsilon, _ = network.expectations(x.detach(), torch.full((6,), t))
    torch.testing.assert_close(epsilon, -(1 - alpha).sqrt() * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1.0, 1e3])
def test_it_is_finite_and_float32_is_near_float64(dtype, far):
    _, means = signal.signals()
    network = GaussianMixtureDenoiser(means, 0.03, None, SCHEDULE, dtype=dtype)
    exact = GaussianMixtureDenoiser(means, 0.03, None, SCHEDULE)
    x = far * torch.randn(len(T), 1, 1, 128, generator=generator())
    out = network(x, torch.tensor(T))
    assert out.dtype == torch.float32
    assert out.shape == x.shape
    torch.testing.assert_close(out, exact(x, torch.tensor(T)), rtol=0, atol=1e-4 * far)


def test_the_null_label_is_the_whole_mixture_and_a_label_one_gaussian():
    network, x, t = mixture(), torch.randn(3, 1, 1, 2, generator=generator()), torch.full((3,), 300)
    assert torch.equal(network(x, t), network(x, t, torch.full((3,), network.null_label)))
    labels = torch.arange(3)
    torch.testing.assert_close(network.responsibilities(x, t, labels), torch.eye(3, dtype=torch.float64))
    alone = torch.cat([
        GaussianMixtureDenoiser(MEANS[k : k + 1], STDS[k : k + 1], None, SCHEDULE)(x[k : k + 1], t[k : k + 1])
        for k in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(network(x, t, labels), alone)


def test_every_prediction_gives_the_same_samples():
    drawn = {
        prediction: sample(
            planar_model(prediction),
            trajectory.ancestral(SCHEDULE, trajectory.spaced(SCHEDULE, 50), prediction=prediction, clip=None),
            count=16, progress=False,
        ).images
        for prediction in ("epsilon", "x0", "v")
    }  # fmt: skip
    torch.testing.assert_close(drawn["x0"], drawn["epsilon"], rtol=0, atol=1e-4)
    torch.testing.assert_close(drawn["v"], drawn["epsilon"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [trajectory.ancestral, trajectory.ddim])
def test_shares_and_moments_of_samples_are_those_of_the_mixture(way):
    """Within 5 standard errors of the exact values, with all 1,000 steps (DDIM with 250 is seen to fail)."""
    n = 4000
    drawn = sample(
        planar_model(), way(SCHEDULE, clip=None), count=n, batch_size=n, noise=GeneratorNoise(generator(3)),
        progress=False,
    ).images.flatten(1).double()  # fmt: skip
    component = (torch.cdist(drawn, MEANS) / STDS).argmin(1)  # some 10 standard deviations apart
    for k in range(3):
        mine = drawn[component == k]
        share_error = math.sqrt(float(WEIGHTS[k] * (1 - WEIGHTS[k])) / n)
        assert abs(len(mine) / n - WEIGHTS[k]) < 5 * share_error
        mean_error = STDS[k] / math.sqrt(len(mine))
        assert bool(((mine.mean(0) - MEANS[k]).abs() < 5 * mean_error).all())
        variance = (mine - MEANS[k]).square().mean()  # of 2·len(mine) squares, each with variance 2σ⁴
        assert abs(variance / STDS[k] ** 2 - 1) < 5 * math.sqrt(2 / (2 * len(mine)))


@pytest.mark.parametrize(("way", "steps"), [(trajectory.ancestral, 20), (trajectory.strided, 20),
                                            (trajectory.ddim, 20), (trajectory.ancestral, 200)])  # fmt: skip
def test_a_labelled_sample_has_the_moments_that_the_rows_say(way, steps):
    """One Gaussian makes the sampler linear, so its result is known exactly, too few steps included."""
    n, k = 4000, 2
    path = way(SCHEDULE, trajectory.spaced(SCHEDULE, steps), clip=None)
    drawn = sample(
        planar_model(), path, labels=torch.full((n,), k), batch_size=n, noise=GeneratorNoise(generator(5)),
        progress=False,
    ).images.flatten(1).double()  # fmt: skip
    mean, variance = torch.zeros(2, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for t, (_, _, c, d, sigma, _) in zip(path.timesteps, path.rows, strict=True):
        alpha = SCHEDULE.alphas_cumprod[t]
        gain = alpha.sqrt() * STDS[k] ** 2 / (alpha * STDS[k] ** 2 + 1 - alpha)
        slope = c * gain + d  # of x_s in x_t
        mean = slope * mean + c * (1 - gain * alpha.sqrt()) * MEANS[k]
        variance = slope**2 * variance + sigma**2
    assert bool(((drawn.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all())
    assert abs((drawn - mean).square().mean() / variance - 1) < 5 * math.sqrt(2 / (2 * n))


@pytest.mark.parametrize("guide", [sequential_cfg, batched_cfg])
def test_guidance_in_closed_form(guide):
    """ε_g = ε_u + s √(1-ᾱ)/v √ᾱ (Σ_j r_j μ_j - μ_k), where all components share one standard deviation."""
    t, s, std = 400, 2.5, 0.2
    network = GaussianMixtureDenoiser(MEANS, std, WEIGHTS, SCHEDULE)
    x = torch.randn(6, 1, 1, 2, generator=generator(), dtype=torch.float64)
    labels = torch.arange(6) % 3
    out = combine(guide(network, Condition.labels(labels, network.null_label), s)(State(x), torch.tensor([t])))
    alpha = SCHEDULE.alphas_cumprod[t]
    v = alpha * std**2 + 1 - alpha
    apart = ((x.flatten(1)[:, None] - alpha.sqrt() * MEANS) ** 2).sum(-1)
    r = (WEIGHTS.log() - apart / (2 * v)).softmax(1)
    away = (x.flatten(1) - alpha.sqrt() * (r @ MEANS)) / v
    pull = alpha.sqrt() * (r @ MEANS - MEANS[labels]) / v
    torch.testing.assert_close(out.flatten(1), (1 - alpha).sqrt() * (away + s * pull), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["reference", "batched-cfg", "autocast-bf16", "cast-bf16"])
def test_variants_take_it_as_a_network(name):
    labels = torch.tensor([0, 1, 2, 0])
    path = trajectory.ddim(SCHEDULE, trajectory.spaced(SCHEDULE, 5), clip=None)
    drawn = sample(planar_model(), path, labels=labels, guidance=2.0, variant=variant(name), progress=False)
    assert bool(drawn.images.isfinite().all())


def test_the_demonstration_starts_alike_and_ends_in_signals():
    names, shapes = signal.signals()
    assert shapes.shape == (len(names), 128)
    assert float(shapes.abs().max()) <= 1
    ways = signal.demonstration(seed=7)
    network = signal.model().network
    assert torch.equal(ways["DDPM"].kept[999][0], ways["DDIM"].kept[999][0])
    for samples in ways.values():
        distance = (samples.images.flatten() - shapes).square().mean(-1).sqrt()
        assert float(distance.min()) < 1.5 * signal.STD
        for t, (x, x0) in samples.kept.items():
            expected = network.expectations(x, torch.tensor([t]))[1].reshape(x0.shape)
            assert float((x0 - expected).abs().max()) < 1e-3 / math.sqrt(float(SCHEDULE.alphas_cumprod[t]))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"means": torch.zeros(3)}, "components, numbers"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, "positive weights"),
        ({"weights": torch.ones(2)}, "3 positive weights"),
        ({"stds": -1.0}, "not negative"),
        ({"prediction": "epsilom"}, "did you mean 'epsilon'"),
    ],
)
def test_mistakes_are_sentences(kwargs, says):
    arguments = {"means": MEANS, "stds": STDS, "weights": WEIGHTS, "schedule": SCHEDULE} | kwargs
    with pytest.raises(UsageError, match=says):
        GaussianMixtureDenoiser(**arguments)
