"""Laws that every table of coefficients must obey, whatever the schedule and the subset of timesteps."""

import pytest
import torch
from torch import nn

from sampler import schedule as schedules
from sampler import trajectory as trajectories
from sampler.posterior import estimate_x0
from sampler.trajectory import PREDICTIONS, ancestral, ddim, spaced, strided
from sampler.variants import REFERENCE, build, run

hypothesis, st = pytest.importorskip("hypothesis"), pytest.importorskip("hypothesis.strategies")
given, settings = hypothesis.given, hypothesis.settings

a_law = settings(deadline=None, max_examples=50, derandomize=True, database=None)


@st.composite
def schedules_and_subsets(draw):
    betas = draw(st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=30))
    subset = draw(st.sets(st.integers(0, len(betas) - 1), min_size=1))
    return schedules.from_betas(betas), sorted(subset, reverse=True)


def levels(schedule, timesteps):
    """ᾱ_t and ᾱ_s of every step."""
    at = schedule.alphas_cumprod[list(timesteps)]
    return at, torch.cat([at[1:], torch.ones(1, dtype=torch.float64)])


def columns(trajectory):
    return dict(zip(trajectories.COLUMNS, trajectory.rows.unbind(1), strict=False))


@a_law
@given(schedules_and_subsets(), st.floats(0, 1))
def test_every_step_lands_on_the_forward_process(case, eta):
    """From x_t = √ᾱ_t x0 + √(1-ᾱ_t) ε to mean √ᾱ_s x0 and variance 1 - ᾱ_s, if ε is independent of z."""
    schedule, timesteps = case
    at, as_ = levels(schedule, timesteps)
    for trajectory in (
        ancestral(schedule, timesteps),
        ddim(schedule, timesteps, eta=eta),
        strided(schedule, timesteps),
    ):
        row = columns(trajectory)
        torch.testing.assert_close(row["c"] + row["d"] * at.sqrt(), as_.sqrt(), rtol=1e-9, atol=1e-9)
        variance = row["d"] ** 2 * (1 - at) + row["sigma"] ** 2
        torch.testing.assert_close(variance, 1 - as_, rtol=1e-9, atol=1e-9)


@a_law
@given(schedules_and_subsets())
def test_the_larger_variance_changes_the_noise_alone(case):
    schedule, timesteps = case
    at, as_ = levels(schedule, timesteps)
    small = columns(ancestral(schedule, timesteps, variance="posterior"))
    large = columns(ancestral(schedule, timesteps, variance="beta"))
    for name in ("a", "b", "c", "d", "bound"):
        assert torch.equal(small[name], large[name])
    torch.testing.assert_close(large["sigma"][:-1] ** 2, (1 - at / as_)[:-1])
    assert (large["sigma"][:-1] > small["sigma"][:-1]).all()


@a_law
@given(schedules_and_subsets())
def test_ddim_with_eta_1_is_ancestral(case):
    schedule, timesteps = case
    torch.testing.assert_close(
        ddim(schedule, timesteps, eta=1.0).rows, ancestral(schedule, timesteps).rows, rtol=1e-7, atol=1e-9
    )


def test_ddim_with_eta_1_is_ancestral_on_the_whole_schedule(schedule):
    torch.testing.assert_close(ddim(schedule, eta=1.0).rows, ancestral(schedule).rows, rtol=1e-9, atol=1e-12)


@a_law
@given(schedules_and_subsets(), st.floats(0, 1))
def test_only_the_last_step_is_without_noise(case, eta):
    schedule, timesteps = case
    for trajectory in (
        ancestral(schedule, timesteps),
        ancestral(schedule, timesteps, variance="beta"),
        ddim(schedule, timesteps, eta=max(eta, 1e-3)),
        strided(schedule, timesteps),
    ):
        assert trajectory.stochastic == (True,) * (len(timesteps) - 1) + (False,)
        assert float(trajectory.rows[-1, 4]) == 0.0
    assert not any(ddim(schedule, timesteps, eta=0.0).stochastic)


@a_law
@given(schedules_and_subsets(), st.sampled_from(sorted(PREDICTIONS)), st.integers(0, 2**32 - 1))
def test_every_prediction_gives_back_x0(case, prediction, seed):
    schedule, timesteps = case
    trajectory = ancestral(schedule, timesteps, prediction=prediction, clip=None)
    generator = torch.Generator().manual_seed(seed)
    x0, epsilon = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    for t, row in zip(timesteps, trajectory.rows, strict=True):
        signal, noise = schedule.alphas_cumprod[t].sqrt(), (1 - schedule.alphas_cumprod[t]).sqrt()
        out = {"epsilon": epsilon, "x0": x0, "v": signal * epsilon - noise * x0}[prediction]
        estimate = estimate_x0(signal * x0 + noise * epsilon, out, row)
        torch.testing.assert_close(estimate, x0, rtol=1e-6, atol=1e-6)


class Oracle(nn.Module):
    """Knows the image and answers with the noise that was really added."""

    def __init__(self, schedule, x0):
        super().__init__()
        self.x0, self.alphas_cumprod = x0, schedule.alphas_cumprod

    def forward(self, x, t, condition=None):
        alphas_cumprod = self.alphas_cumprod[t][:, None, None, None]
        return (x - alphas_cumprod.sqrt() * self.x0) / (1 - alphas_cumprod).sqrt()


@pytest.mark.parametrize("timesteps", [range(999, -1, -1), (999, 500, 499, 3), (999,), (700, 20, 0)])
def test_a_noiseless_path_stays_on_its_path(timesteps, schedule, recorded):
    x0 = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    noise = recorded(0, x0.shape)
    epsilon = noise.draw(1000, x0)
    trajectory = ddim(schedule, timesteps, eta=0.0, clip=None)

    def on_the_path(i, x):
        remaining = schedule.alphas_cumprod[trajectory.timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
        remaining = torch.as_tensor(remaining, dtype=torch.float64)
        expected = remaining.sqrt() * x0 + (1 - remaining).sqrt() * epsilon
        torch.testing.assert_close(x, expected, rtol=0, atol=2e-5)

    x = schedule.add_noise(x0, torch.full((2,), timesteps[0]), epsilon)
    final = run(build(REFERENCE, Oracle(schedule, x0)), x, trajectory, noise, after_step=on_the_path)
    torch.testing.assert_close(final, x0, rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", [ancestral, ddim, strided])
def test_an_oracle_leads_every_sampler_to_the_image(make, schedule, recorded):
    x0 = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    noise = recorded(1, x0.shape)
    trajectory = make(schedule, spaced(schedule, 20))
    final = run(build(REFERENCE, Oracle(schedule, x0)), noise.draw(1000, x0), trajectory, noise)
    torch.testing.assert_close(final, x0, rtol=0, atol=1e-5)


def test_the_oracle_can_be_clipped(schedule, recorded):
    """Where the estimate leaves the bound, the bound is what comes out."""
    x0 = torch.tensor([-3.0, -0.2, 0.2, 3.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    noise = recorded(2, x0.shape)
    trajectory = ancestral(schedule, spaced(schedule, 10), clip=0.5)
    final = run(build(REFERENCE, Oracle(schedule, x0)), noise.draw(1000, x0), trajectory, noise)
    expected = torch.tensor([-0.5, -0.2, 0.2, 0.5], dtype=torch.float64).reshape(1, 1, 2, 2)
    torch.testing.assert_close(final, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 300, 333, 999, 1000])
@pytest.mark.parametrize("spacing", trajectories.SPACINGS)
def test_exactly_as_many_steps_as_asked_for(count, spacing, schedule):
    timesteps = spaced(schedule, count, spacing)
    trajectory = ancestral(schedule, timesteps)
    assert trajectory.steps == len(set(timesteps)) == count
    at, _ = levels(schedule, timesteps)
    row = columns(trajectory)
    # the end is the data: what the last row leaves is its x0 estimate
    assert (float(row["c"][-1]), float(row["d"][-1])) == (pytest.approx(1.0, abs=1e-12), 0.0)
    if spacing != "leading" and count > 1:
        assert timesteps[0] == 999
    assert (at[1:] > at[:-1]).all()


def test_the_first_steps_are_a_part_of_the_whole(schedule, wavy, recorded):
    noise = recorded(3, (2, 1, 4, 4))
    whole = ancestral(schedule, spaced(schedule, 40))
    states = []
    start = noise.draw(1000, torch.empty(2, 1, 4, 4))
    run(build(REFERENCE, wavy), start, whole, noise, after_step=lambda i, x: states.append(x))
    part = whole.first(15)
    assert part.timesteps == whole.timesteps[:15]
    assert part.train_steps == whole.train_steps
    assert torch.equal(run(build(REFERENCE, wavy), start, part, noise), states[14])
    picked = whole.at([3, 20])
    assert picked.timesteps == (whole.timesteps[3], whole.timesteps[20])
    assert torch.equal(picked.rows, whole.rows[[3, 20]])


def test_tables_are_made_for_the_device(schedule):
    trajectory = ancestral(schedule, (900, 3))
    timesteps, rows = trajectory.tables("cpu")
    assert timesteps.dtype is torch.int64
    assert timesteps.tolist() == [900, 3]
    assert rows.dtype is torch.float32
    assert rows.shape == (2, 6)
    assert trajectories.dpmpp_2m(schedule, (900, 3)).tables("cpu")[1].shape == (2, len(trajectories.COLUMNS))
    assert trajectory.rows.dtype is torch.float64
    assert torch.equal(rows, trajectory.rows.float())


@pytest.mark.parametrize("prediction", ["v", "x0"])
@pytest.mark.parametrize("make", [ancestral, ddim, strided])
def test_zero_terminal_signal(prediction, make, recorded):
    """Lin et al. (2024): from pure noise the first step goes to the estimate alone, and nothing is NaN."""
    betas = schedules.linear().betas.clone()
    betas[-1] = 1.0
    schedule = schedules.from_betas(betas)
    trajectory = make(schedule, spaced(schedule, 10), prediction=prediction, clip=None)
    assert torch.isfinite(trajectory.rows[:, :5]).all()
    x0 = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    noise = recorded(4, x0.shape)
    x = noise.draw(1000, x0)
    out = x0 if prediction == "x0" else -x0
    torch.testing.assert_close(estimate_x0(x, out, trajectory.rows[0]), x0)
    assert float(trajectory.rows[0, 2]) == pytest.approx(
        float(schedule.alphas_cumprod[trajectory.timesteps[1]].sqrt()), rel=1e-9
    )
