"""What `bench walk` records: the very states of the sampler, and the noise that goes with its estimate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import walk
from bench.__main__ import main
from sampler import signal, trajectory
from sampler.generate import sample
from sampler.noise import PhiloxNoise

VISITED = [900, 600, 300, 10]


def frames(prediction: str = "epsilon", way=trajectory.ancestral) -> walk.Way:
    model = signal.model(prediction=prediction)
    path = way(model.schedule, VISITED, prediction=prediction, clip=None)
    return walk._frames("way", model, path, 3, 2, VISITED[:3], None, 1.0)


@pytest.mark.parametrize("way", [trajectory.ancestral, trajectory.ddim])
def test_the_frames_are_those_of_the_sampler(way) -> None:
    made = frames(way=way)
    model = signal.model()
    path = way(model.schedule, VISITED, clip=None)
    drawn = sample(model, path, noise=PhiloxNoise(3, range(2)), count=2, keep=VISITED[:3], progress=False)
    assert made.x.shape == made.x0.shape == made.noise.shape == (4, 2, 1, 1, 128)
    for i, t in enumerate(VISITED[:3]):
        assert np.array_equal(made.x[i], drawn.kept[t][0].numpy())
        assert np.array_equal(made.x0[i], drawn.kept[t][1].numpy())
    assert np.array_equal(made.x[-1], drawn.images.numpy())
    assert np.array_equal(made.x0[-1], drawn.images.numpy())


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_the_noise_is_told_whatever_the_network_predicts(prediction: str) -> None:
    assert np.allclose(frames(prediction).noise, frames("epsilon").noise, atol=2e-3)


def test_the_bound_on_x0_is_the_models(monkeypatch) -> None:
    paths = []

    def looked(way, model, path, *_) -> walk.Way:
        paths.append(path)
        return walk.Way(way, path.steps, *np.zeros((3, 2, 1, 1, 1, 1), np.float32))

    monkeypatch.setattr(walk, "_frames", looked)
    monkeypatch.setattr(walk, "load_model", lambda *_: replace(signal.model(), clip=0.5))
    walk.record("mine.py:make", "cpu", 1.0, 0)
    assert [path.name for path in paths] == ["ancestral", "ancestral", "ddim(η=0)", "ddim(η=0)"]
    assert {float(bound) for path in paths[::2] for bound in path.rows[:, 5]} == {0.5}


def test_pictures_in_bytes_span_their_range() -> None:
    values = np.array([-1.0, 0.0, 1.0, 5.0], np.float32).reshape(4, 1, 1, 1, 1)
    made = walk._in_bytes(walk.Way("way", 1, values, values, 3 * values))
    for array in (made.x, made.x0, made.noise):
        assert array.flatten().tolist() == [0, 128, 255, 255]


@pytest.mark.slow
def test_the_command_records_a_walk_that_the_report_can_show(tmp_path, capsys) -> None:
    assert main(["walk", "--out", str(tmp_path)]) == 0
    path = capsys.readouterr().out.splitlines()[0]
    made = walk.load(path)
    assert len(made.timesteps) == walk.FRAMES
    for way in made.images:
        assert way.x.shape == (walk.FRAMES + 1, 3, 1, 28, 28)
        assert np.array_equal(way.x[-1], way.x0[-1])
        early, late = (np.abs(way.x0[i].astype(int) - way.x0[-1]).mean() for i in (2, -3))
        assert early > 4 * late  # the estimate comes to the picture
    ends = [way.x[-1] for way in made.images]
    assert not np.array_equal(*ends)
    assert np.array_equal(made.images[0].x[0], made.images[1].x[0])  # the same start
    assert torch.get_num_threads() == 1
