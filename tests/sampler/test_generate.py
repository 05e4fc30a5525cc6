"""`sample`: the same pictures however they are batched, what is kept on the way, and where NaN began."""

import dataclasses
import re
import weakref

import pytest
import torch
from torch import nn

from sampler import generate
from sampler.errors import NonFiniteError, UsageError
from sampler.generate import grid, sample, to_unit
from sampler.guidance import Condition
from sampler.noise import GeneratorNoise, PhiloxNoise
from sampler.posterior import posterior
from sampler.trajectory import ancestral, ddim, spaced
from sampler.variants import REFERENCE, VARIANTS, build, run

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])


@pytest.fixture
def trajectory(tiny):
    return ancestral(tiny.schedule, spaced(tiny.schedule, 6))


def images(model, trajectory, **options):
    options = {"labels": LABELS, "guidance": 2.0, "seed": 5, **options}
    return sample(model, trajectory, progress=False, **options).images


def test_samples_do_not_depend_on_the_batch_size(tiny, trajectory):
    whole = images(tiny, trajectory)
    assert whole.shape == (8, 1, 8, 8)
    assert (whole.std(dim=0) > 0.01).any()
    for batch_size in (1, 3, 4, 8, 100):
        torch.testing.assert_close(images(tiny, trajectory, batch_size=batch_size), whole, rtol=1e-5, atol=1e-5)


def test_whole_batches_share_one_sampler(tiny, trajectory, monkeypatch):
    """What is compiled or captured for a batch serves the next of its size; the smaller last one gets its own."""
    built = []
    whole = images(tiny, trajectory, batch_size=100)
    monkeypatch.setattr(generate, "build", lambda *given: built.append(len(given[2].value)) or build(*given))
    in_batches = images(tiny, trajectory, batch_size=3)
    assert built == [3, len(LABELS) % 3]
    torch.testing.assert_close(in_batches, whole, rtol=1e-5, atol=1e-5)


def test_equal_batches_are_equal_whatever_their_company(tiny, trajectory):
    """Bit for bit: the first four of eight, and the same four with four others."""
    whole = images(tiny, trajectory, batch_size=4)
    assert torch.equal(images(tiny, trajectory, batch_size=4, labels=LABELS[:4]), whole[:4])
    others = PhiloxNoise(5, [100, 101, 102, 103, 0, 1, 2, 3])
    labels = torch.cat([torch.zeros(4, dtype=torch.int64), LABELS[:4]])
    moved = images(tiny, trajectory, batch_size=4, labels=labels, noise=others)
    assert torch.equal(moved[4:], whole[:4])


def test_a_request_can_be_split_between_processes(tiny, trajectory):
    whole = images(tiny, trajectory, batch_size=4)
    parts = [
        images(tiny, trajectory, batch_size=4, labels=LABELS[ids], noise=PhiloxNoise(5, ids))
        for ids in (range(0, 4), range(4, 8))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_seeds_and_labels_matter(tiny, trajectory):
    whole = images(tiny, trajectory)
    assert torch.equal(images(tiny, trajectory), whole)
    assert not torch.allclose(images(tiny, trajectory, seed=6), whole, atol=0.05)
    assert not torch.allclose(images(tiny, trajectory, labels=LABELS.flip(0)), whole, atol=0.05)
    assert not torch.allclose(images(tiny, trajectory, guidance=1.0), whole, atol=0.05)


def test_labels_may_be_a_list(tiny, trajectory):
    assert torch.equal(images(tiny, trajectory, labels=LABELS.tolist()), images(tiny, trajectory))


def test_an_embedding_and_no_condition_at_all(tiny, trajectory):
    with torch.no_grad():
        null = torch.full_like(LABELS, tiny.null_label)
        embedded = Condition(tiny.network.label(LABELS), tiny.network.label(null))
    torch.testing.assert_close(images(tiny, trajectory, labels=None, condition=embedded), images(tiny, trajectory))
    free = images(tiny, trajectory, labels=None, guidance=1.0, count=8)
    nothing = images(tiny, trajectory, labels=None, guidance=1.0, condition=Condition(null, null))
    torch.testing.assert_close(free, nothing)


def test_a_generator_is_used_in_order(tiny, trajectory):
    noise = GeneratorNoise(torch.Generator().manual_seed(1))
    actual = images(tiny, trajectory, noise=noise)
    again = GeneratorNoise(torch.Generator().manual_seed(1))
    sampler = build(REFERENCE, tiny.network, tiny.condition(LABELS), 2.0)
    start = torch.randn(8, 1, 8, 8, generator=again.generator)
    assert torch.equal(actual, run(sampler, start, trajectory, again))
    assert not torch.equal(images(tiny, trajectory, noise=noise), actual)


@pytest.mark.parametrize("name", ["reference", "batched-cfg", "native-update", "limited-guidance"])
@pytest.mark.parametrize("make", [ancestral, ddim])
def test_what_is_kept_is_what_the_loop_used(name, make, tiny):
    """From every kept (x_t, x0) the next x_t follows by the recurrence, and the last x0 is the picture."""
    trajectory = make(tiny.schedule, spaced(tiny.schedule, 6))
    samples = sample(
        tiny, trajectory, labels=LABELS, guidance=2.0, keep=trajectory.timesteps, batch_size=3,
        variant=VARIANTS[name], progress=False,
    )  # fmt: skip
    assert tuple(samples.kept) == trajectory.timesteps
    noise = PhiloxNoise(0, range(8))
    x, _ = samples.kept[trajectory.timesteps[0]]
    torch.testing.assert_close(x, noise.draw(1000, x))
    for i, (t, row) in enumerate(zip(trajectory.timesteps, trajectory.rows.float(), strict=True)):
        x, x0 = samples.kept[t]
        assert x0.abs().max() <= 1
        last = i + 1 == trajectory.steps
        z = torch.zeros_like(x) if last else noise.draw(t, x)
        _, _, c, d, sigma, _ = row
        following = samples.images if last else samples.kept[trajectory.timesteps[i + 1]][0]
        torch.testing.assert_close(c * x0 + d * x + sigma * z, following, rtol=0, atol=1e-4)
    torch.testing.assert_close(samples.kept[trajectory.timesteps[-1]][1], samples.images, rtol=0, atol=1e-6)


def test_keeping_changes_nothing(tiny, trajectory):
    some = trajectory.timesteps[1:3]
    samples = sample(tiny, trajectory, labels=LABELS, guidance=2.0, seed=5, keep=some, progress=False)
    assert torch.equal(samples.images, images(tiny, trajectory))
    assert tuple(samples.kept) == some
    noise = GeneratorNoise(torch.Generator().manual_seed(1))
    kept = images(tiny, trajectory, noise=noise, keep=some)
    noise = GeneratorNoise(torch.Generator().manual_seed(1))
    assert torch.equal(images(tiny, trajectory, noise=noise), kept)


class BreaksBelow(nn.Module):
    """NaN from a timestep on, and only for starts whose first pixel is positive."""

    def __init__(self, network, timestep, value=float("nan")):
        super().__init__()
        self.network, self.timestep, self.value = network, timestep, value

    def forward(self, x, t, condition=None):
        out = self.network(x, t, condition)
        broken = (t <= self.timestep).reshape(-1, 1, 1, 1) & (x[:, :1, :1, :1] > 0)
        return torch.where(broken, self.value, out)


def broken(model, timestep, value=float("nan")):
    return dataclasses.replace(model, network=BreaksBelow(model.network, timestep, value))


@pytest.mark.parametrize("source", ["philox", "generator", "global generator"])
def test_nan_is_reported_with_the_step_where_it_began(source, tiny, trajectory):
    """The walk that looks for it must see the noise of the first, or it finds another step."""
    torch.manual_seed(2)
    noise = {
        "philox": None,
        "generator": GeneratorNoise(torch.Generator().manual_seed(1)),
        "global generator": GeneratorNoise(),
    }[source]
    model = broken(tiny, trajectory.timesteps[2])
    with pytest.raises(NonFiniteError) as caught:
        images(model, trajectory, noise=noise)
    assert caught.value.step == 2
    t = trajectory.timesteps[2]
    assert f"NaN or infinity at step 3 of 6 (timestep {t}) with variant 'reference'" in str(caught.value)


@pytest.mark.parametrize("source", ["generator", "global generator"])
def test_the_walk_repeats_the_noise_of_the_failed_batch(source, tiny, trajectory, monkeypatch):
    """Also in the second batch, where the generator has moved on."""
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(1) if source == "generator" else None
    starts, walked = [], []
    monkeypatch.setattr(generate, "initial_noise", remember(generate.initial_noise, starts))
    monkeypatch.setattr(generate, "find_first_nonfinite", remember_start(generate.find_first_nonfinite, walked))
    network = FailsInItsSecondBatch(tiny.network, trajectory.steps)
    model = dataclasses.replace(tiny, network=network)
    with pytest.raises(NonFiniteError):
        images(model, trajectory, guidance=1.0, batch_size=4, noise=GeneratorNoise(generator))
    assert len(starts) == 3  # two batches, and the second once more
    assert torch.equal(starts[1], walked[0])
    assert not torch.equal(starts[0], walked[0])


def remember(function, results):
    def call(*arguments):
        results.append(function(*arguments))
        return results[-1]

    return call


def remember_start(function, starts):
    def call(sampler, x, trajectory, noise):
        starts.append(x)
        return function(sampler, x, trajectory, noise)

    return call


class FailsInItsSecondBatch(nn.Module):
    def __init__(self, network, steps):
        super().__init__()
        self.network, self.calls, self.steps = network, 0, steps

    def forward(self, x, t, condition=None):
        self.calls += 1
        out = self.network(x, t, condition)
        return out * float("nan") if self.calls > self.steps + 2 else out  # the first call is the check


def test_nan_is_found_under_clipping_and_in_any_sample(tiny, trajectory):
    clipped = ancestral(tiny.schedule, trajectory.timesteps, clip=0.5)
    with pytest.raises(NonFiniteError):
        images(broken(tiny, trajectory.timesteps[-1]), clipped)


def test_infinity_is_reported_where_nothing_clips_it(tiny, trajectory):
    free = ancestral(tiny.schedule, trajectory.timesteps, clip=None)
    with pytest.raises(NonFiniteError) as caught:
        images(broken(tiny, trajectory.timesteps[4], value=float("inf")), free, guidance=1.0)
    assert caught.value.step == 4


def test_progress_is_on_the_error_stream_and_can_be_off(tiny, trajectory, capfd, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    sample(tiny, trajectory, count=2, progress=False)
    assert capfd.readouterr() == ("", "")
    sample(tiny, trajectory, count=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "sampling" in err
    assert "6/6 steps" in re.sub("\x1b\\[[^a-zA-Z]*[a-zA-Z]", "", err)


def test_progress_counts_every_step_of_every_batch(tiny, trajectory, monkeypatch):
    advanced, totals = [], []

    class Bar:
        def __init__(self, total):
            totals.append(total)

        def __enter__(self):
            return lambda: advanced.append(1)

        def __exit__(self, *exception):
            return None

    monkeypatch.setattr(generate, "_Bar", Bar)
    sample(tiny, trajectory, count=8, batch_size=3, progress=True)
    assert totals == [len(advanced)] == [3 * 6]


def test_finished_batches_leave_nothing_behind(tiny, trajectory, monkeypatch):
    """While the last of eight batches runs, no state or condition of an earlier one is alive."""
    states = []
    original = generate.initial_noise

    def watched(*arguments):
        assert sum(ref() is not None for ref in states) <= 1
        x = original(*arguments)
        states.append(weakref.ref(x))
        return x

    monkeypatch.setattr(generate, "initial_noise", watched)
    samples = sample(tiny, trajectory, labels=LABELS, batch_size=1, progress=False)
    assert len(states) == 8
    assert samples.images.device.type == "cpu"
    assert samples.images.dtype is torch.float32
    assert samples.images.is_contiguous()


def test_a_picture_of_many():
    pictures = torch.stack([torch.full((1, 2, 2), value) for value in (-1.0, 0.0, 3.0)])
    assert to_unit(pictures).flatten(1)[:, 0].tolist() == [0.0, 0.5, 1.0]
    whole = grid(pictures, columns=2, padding=1)
    assert whole.shape == (1, 7, 7)
    assert whole[0, 1:3, 1:3].unique().tolist() == [0.0]
    assert whole[0, 1:3, 4:6].unique().tolist() == [0.5]
    assert whole[0, 4:6, 1:3].unique().tolist() == [1.0]
    assert whole[0, 0].unique().tolist() == [1.0]


def test_a_denoiser_in_closed_form_needs_no_parameters(tiny, trajectory):
    class Zero(nn.Module):
        def forward(self, x, t, condition=None):
            return torch.zeros_like(x)

    model = dataclasses.replace(tiny, network=Zero(), classes=0)
    x = sample(model, trajectory, count=2, progress=False).images
    noise = PhiloxNoise(0, range(2))
    expected = noise.draw(1000, x)
    for i, (t, row) in enumerate(zip(trajectory.timesteps, trajectory.rows.float(), strict=True)):
        z = noise.draw(t, x) if i + 1 < trajectory.steps else torch.zeros_like(x)
        expected = posterior(expected, torch.zeros_like(x), z, row)
    torch.testing.assert_close(x, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["reference", "cuda-graph", "fused-update"])
def test_a_gpu_draws_the_cpus_pictures(name, tiny, trajectory):
    expected = images(tiny, trajectory)
    tiny.network.cuda()
    actual = images(tiny, trajectory, variant=VARIANTS[name], batch_size=4)
    assert actual.device.type == "cpu"
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_memory_on_the_gpu_does_not_grow_with_the_request(tiny, trajectory):
    tiny.network.cuda()
    peaks = []
    for count in (8, 8 * 50):
        torch.cuda.reset_peak_memory_stats()
        sample(tiny, trajectory, count=count, batch_size=8, progress=False)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= peaks[0] * 1.05


def test_a_mistake_is_found_before_anything_is_drawn(tiny, trajectory, monkeypatch):
    monkeypatch.setattr(generate, "initial_noise", lambda *_: pytest.fail("drawn too early"))
    with pytest.raises(UsageError):
        sample(tiny, trajectory, count=2, guidance=3.0, progress=False)
