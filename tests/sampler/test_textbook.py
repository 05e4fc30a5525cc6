"""The textbook's loops: the same ancestral sampler in other words, and a strided one with its two flaws."""

import pytest
import torch

from sampler import trajectory as trajectories
from sampler.errors import UsageError
from sampler.guidance import Condition
from sampler.textbook import textbook_ddpm, textbook_strided, textbook_strided_timesteps
from sampler.variants import REFERENCE, build, run

SHAPE = (2, 1, 4, 4)


@pytest.fixture
def noise(recorded):
    return recorded(0, SHAPE)


@pytest.fixture
def start(noise):
    return noise.draw(1000, torch.empty(SHAPE))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ddpm_is_ancestral_with_the_larger_variance_unclipped(scale, schedule, wavy, noise, start, relative_error):
    condition = Condition.labels(torch.tensor([0, 1]), 2)
    trajectory = trajectories.ancestral(schedule, variance="beta", clip=None)
    states = {}
    sampler = build(REFERENCE, wavy, condition, scale)
    expected = run(sampler, start, trajectory, noise, after_step=lambda i, x: states.update({i: x}))
    theirs = {}
    actual = textbook_ddpm(
        wavy, start, schedule, noise, condition, scale, after_step=lambda i, x: theirs.update({i: x})
    )
    assert torch.equal(actual, theirs[999])
    assert max(relative_error(theirs[i], states[i]) for i in range(1000)) < 1e-4
    assert relative_error(actual, expected) < 1e-4


def test_ddpm_without_a_condition(schedule, wavy, noise, start, relative_error):
    trajectory = trajectories.ancestral(schedule, variance="beta", clip=None).first(50)
    expected = run(build(REFERENCE, wavy), start, trajectory, noise)
    actual = textbook_ddpm(wavy, start, schedule, noise, timesteps=trajectory.timesteps)
    assert relative_error(actual, expected) < 1e-5


def test_its_guidance_is_ours(schedule, counted, wavy, noise, start):
    network = counted(wavy)
    condition = Condition.labels(torch.tensor([0, 1]), 2)
    textbook_ddpm(network, start, schedule, noise, condition, 3.0, timesteps=(999, 998))
    assert network.batches == [2] * 4
    network.batches.clear()
    textbook_ddpm(network, start, schedule, noise, condition, 1.0, timesteps=(999, 998))
    assert network.batches == [2] * 2


@pytest.mark.parametrize(
    ("asked", "taken"), [(300, 334), (1000, 1000), (999, 1000), (250, 250), (600, 1000), (50, 50), (1, 1)]
)
def test_strided_counts_its_stride_in_whole_timesteps(asked, taken, schedule, counted, wavy, noise, start):
    assert len(textbook_strided_timesteps(schedule, asked)) == taken
    if asked in (50, 300):
        network = counted(wavy)
        textbook_strided(network, start, schedule, noise, steps=asked)
        assert len(network.batches) == taken


@pytest.mark.parametrize("steps", [300, 50])
def test_strided_leaves_the_noise_of_timestep_0(steps, schedule, noise, start):
    """With a network that knows the image, what comes out is √ᾱ_0 x0 + √(1-ᾱ_0) z, not x0."""
    x0 = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def oracle(x, t, condition):
        alphas_cumprod = schedule.alphas_cumprod.float()[t][:, None, None, None]
        return (x - alphas_cumprod.sqrt() * x0) / (1 - alphas_cumprod).sqrt()

    left = schedule.alphas_cumprod[0]
    z = noise.draw(textbook_strided_timesteps(schedule, steps)[-1], x0)
    actual = textbook_strided(oracle, start, schedule, noise, steps=steps)
    expected = left.sqrt() * x0 + (1 - left).sqrt() * z
    torch.testing.assert_close(actual, expected.float(), rtol=0, atol=2e-5)
    assert (actual - x0).abs().max() > 0.01


def test_strided_agrees_with_ours_until_the_last_step(schedule, wavy, noise, start, relative_error):
    timesteps = textbook_strided_timesteps(schedule, 50)
    ours, theirs = {}, {}
    trajectory = trajectories.strided(schedule, timesteps, clip=None)
    run(build(REFERENCE, wavy), start, trajectory, noise, after_step=lambda i, x: ours.update({i: x}))
    textbook_strided(wavy, start, schedule, noise, steps=50, after_step=lambda i, x: theirs.update({i: x}))
    assert max(relative_error(theirs[i], ours[i]) for i in range(49)) < 1e-4
    left = schedule.alphas_cumprod[0].float()
    added = theirs[49] - left.sqrt() * ours[49]
    torch.testing.assert_close(added, (1 - left).sqrt() * noise.draw(timesteps[49], start), rtol=0, atol=3e-3)


def test_a_part_of_the_strided_loop(schedule, wavy, noise, start):
    states = {}
    textbook_strided(wavy, start, schedule, noise, steps=50, after_step=lambda i, x: states.update({i: x}))
    part = textbook_strided_timesteps(schedule, 50)[:7]
    actual = textbook_strided(wavy, start, schedule, noise, steps=50, timesteps=part)
    assert torch.equal(actual, states[6])


@pytest.mark.parametrize("steps", [0, 1001, -1])
def test_strided_refuses_a_count_it_cannot_take(steps, schedule, wavy, noise, start):
    with pytest.raises(UsageError, match=f"steps = {steps} is outside 1…1000"):
        textbook_strided(wavy, start, schedule, noise, steps=steps)
