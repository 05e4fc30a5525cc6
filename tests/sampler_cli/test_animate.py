"""Animations: as many frames as asked for, from noise to the sample, in either format."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sampler.__main__ import main

MODELS = Path(__file__).resolve().parents[1] / "sampler" / "hostile_models.py"
WORDS = ["animate", "--model", f"{MODELS}:good", "--labels", "1,2", "--per-label", "3", "--steps", "12"]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_its_frames_and_ends_in_the_sample(tmp_path, suffix, capsys):
    out, still = tmp_path / f"way{suffix}", tmp_path / "still.png"
    assert main([*WORDS, "--frames", "5", "--show", "noisy", "--enlarge", "1", "--out", str(out)]) == 0
    frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(Image.open(out))]
    assert len(frames) == 6
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    words = ["grid" if word == "animate" else word for word in WORDS]
    assert main([*words, "--enlarge", "1", "--out", str(still)]) == 0
    sample = np.asarray(Image.open(still).convert("L"))
    assert np.array_equal(frames[-1], sample[:, -frames[-1].shape[1] :])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--out", "x.mp4"], "must end in .gif or .webp"),
        (["--out", "x.gif", "--show", "both"], "neither 'noisy' nor 'estimate'"),
        (["--out", "x.gif", "--frames", "0"], "--frames 0 is below 1"),
        (["--out", "x.gif", "--guidance", "nan"], "not a finite number"),
    ],
)
def test_what_cannot_be_animated(tmp_path, monkeypatch, capsys, more, reason):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, *more]) == 3
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
