"""An independent implementation, diffusers' schedulers, takes the same steps from the same numbers."""

import itertools
from fractions import Fraction

import pytest
import torch

from sampler import schedule as schedules
from sampler import trajectory as trajectories
from sampler.posterior import posterior
from sampler.variants import REFERENCE, build, run

diffusers = pytest.importorskip("diffusers")
DDIMScheduler, DDPMScheduler = diffusers.DDIMScheduler, diffusers.DDPMScheduler
diffusers_ddpm = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")

PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
SIZES = {"posterior": "fixed_small", "beta": "fixed_large"}
SHAPE = (2, 1, 4, 4)

QUICK = [("epsilon", 1.0), ("epsilon", None), ("v", 1.0)]  # of the long loops, which take a second each


def every_case():
    cases = itertools.product(PREDICTIONS, (1.0, None), (50, 1000))
    return [
        pytest.param(
            prediction, clip, steps, id=f"{prediction}-{'clipped' if clip else 'unclipped'}-{steps}",
            marks=() if steps == 50 or (prediction, clip) in QUICK else pytest.mark.slow,
        )
        for prediction, clip, steps in cases
    ]  # fmt: skip


on_every_case = pytest.mark.parametrize(("prediction", "clip", "steps"), every_case())


class Theirs:
    """A diffusers scheduler with our schedule in float64: `step(out, t, x, z)`, the noise handed in."""

    def __init__(self, kind, steps, prediction, clip, monkeypatch, eta=0.0, spacing="leading", **options):
        self.scheduler = kind(
            prediction_type=PREDICTIONS[prediction], clip_sample=clip is not None, timestep_spacing=spacing,
            clip_sample_range=clip or 1.0, **options,
        )  # fmt: skip
        self.scheduler.alphas_cumprod = schedules.linear().alphas_cumprod
        self.scheduler.one = self.scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
        self.scheduler.set_timesteps(steps)
        self.timesteps = self.scheduler.timesteps.tolist()
        self.eta, self.monkeypatch = eta, monkeypatch

    def step(self, out, t, x, z):
        if isinstance(self.scheduler, DDIMScheduler):
            return self.scheduler.step(
                out, t, x, eta=self.eta, use_clipped_model_output=True, variance_noise=z if self.eta else None
            ).prev_sample
        self.monkeypatch.setattr(diffusers_ddpm, "randn_tensor", lambda *_, **__: z)
        return self.scheduler.step(out, t, x).prev_sample


def they_agree(theirs: Theirs, ours: trajectories.Trajectory, network, noise) -> None:
    """Each step alone in float64, and the float32 loop at every state on its way."""
    assert tuple(theirs.timesteps) == ours.timesteps
    states = []
    start = noise.draw(ours.train_steps, torch.empty(SHAPE))
    run(build(REFERENCE, network), start, ours, noise, after_step=lambda i, x: states.append(x))

    x = start.double()
    for t, row, state in zip(theirs.timesteps, ours.rows, states, strict=True):
        out, z = network(x, torch.full((len(x),), t)), noise.draw(t, x)
        expected = theirs.step(out, t, x, z)
        scale = expected.abs().max()
        assert (posterior(x, out, z, row) - expected).abs().max() < 1e-9 * scale, f"step at timestep {t}"
        assert (state - expected).abs().max() < 2e-5 * scale, f"loop at timestep {t}"
        x = expected


@on_every_case
@pytest.mark.parametrize("variance", SIZES)
def test_ancestral(prediction, clip, steps, variance, schedule, wavy, recorded, monkeypatch):
    theirs = Theirs(DDPMScheduler, steps, prediction, clip, monkeypatch, variance_type=SIZES[variance])
    timesteps = trajectories.spaced(schedule, steps, "leading")
    ours = trajectories.ancestral(schedule, timesteps, prediction=prediction, variance=variance, clip=clip)
    they_agree(theirs, ours, wavy, recorded(0, SHAPE))


@on_every_case
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(prediction, clip, steps, eta, schedule, wavy, recorded, monkeypatch):
    theirs = Theirs(DDIMScheduler, steps, prediction, clip, monkeypatch, eta=eta)
    timesteps = trajectories.spaced(schedule, steps, "leading")
    ours = trajectories.ddim(schedule, timesteps, eta=eta, prediction=prediction, clip=clip)
    they_agree(theirs, ours, wavy, recorded(1, SHAPE))


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_the_default_spacing(kind, schedule, wavy, recorded, monkeypatch):
    theirs = Theirs(kind, 50, "epsilon", 1.0, monkeypatch, eta=1.0, spacing="trailing")
    ours = trajectories.ancestral(schedule, trajectories.spaced(schedule, 50))
    they_agree(theirs, ours, wavy, recorded(2, SHAPE))


def test_counts_that_do_not_divide_the_schedule(schedule, wavy, recorded, monkeypatch):
    """diffusers' DDPM steps to the next timestep there too (its DDIM skips T // steps at once)."""
    theirs = Theirs(DDPMScheduler, 30, "epsilon", 1.0, monkeypatch, spacing="linspace")
    ours = trajectories.ancestral(schedule, trajectories.spaced(schedule, 30, "linspace"))
    they_agree(theirs, ours, wavy, recorded(3, SHAPE))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacing(spacing, schedule):
    """The same timesteps, but for diffusers' rounding errors at ties and where it takes a step too many."""
    scheduler = DDPMScheduler(timestep_spacing=spacing)
    agreed = 0
    for count in [*range(1, 60), 64, 100, 125, 128, 200, 250, 300, 333, 500, 600, 999, 1000]:
        ours = trajectories.spaced(schedule, count, spacing)
        scheduler.set_timesteps(count)
        theirs = scheduler.timesteps.tolist()
        assert len(ours) == count
        if len(theirs) == count:
            differing = [i for i in range(count) if ours[i] != theirs[i]]
            assert all(is_tie(spacing, count, count - 1 - i) for i in differing)
            assert all(abs(ours[i] - theirs[i]) == 1 for i in differing)
            agreed += not differing
        else:
            assert spacing == "trailing"
            assert len(theirs) == count + 1
        if 1000 % count == 0:
            assert list(ours) == theirs
    assert agreed > 60


def is_tie(spacing: str, count: int, i: int) -> bool:
    exact = Fraction((i + 1) * 1000, count) if spacing == "trailing" else Fraction(i * 999, count - 1)
    return exact.denominator == 2


def test_betas(schedule):
    theirs = DDPMScheduler(beta_schedule="linear")
    torch.testing.assert_close(schedule.betas.float(), theirs.betas, rtol=1e-6, atol=0)
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(schedules.cosine().betas.float(), theirs.betas, rtol=1e-5, atol=0)


def test_forward_process(schedule):
    x0, noise = torch.randn(2, 5, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 1, 250, 998, 999])
    expected = DDPMScheduler().add_noise(x0, noise, t)
    torch.testing.assert_close(schedule.add_noise(x0, t, noise), expected, rtol=1e-5, atol=1e-6)
