"""`python -m bench distance`: folders of pictures in a feature space of one's own, and what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.__main__ import main
from bench.quality import distances, folders, trial
from bench.quality.judging import real_test
from bench.quality.real import load as load_real

MINE = """
import torch

def corner(images):
    return images[:, :, :3, :3].flatten(1)

def wrong(images):
    return images

def fails(images):
    raise RuntimeError("no network at home")

def nan(images):
    return images.flatten(1) * float("nan")

number = 3
"""


def folder_of(path: Path, count: int, seed: int, shape=(8, 8, 3), shift: int = 0) -> Path:
    path.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(shift, 200 + shift, shape, np.uint8)).save(path / f"{i:04}.png")
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    folder_of(tmp_path / "a", 120, 0)
    folder_of(tmp_path / "b", 150, 1)
    folder_of(tmp_path / "far", 120, 2, shift=55)
    return tmp_path


def asked(own: Path, one: str, other: str, *more: str) -> list[str]:
    return ["distance", str(own / one), str(own / other), "--features", f"{own / 'mine.py'}:corner", *more]


def test_features_of_ones_own_tell_what_is_near_from_what_is_far(own: Path, capsys) -> None:
    found = {}
    for name in ("b", "far"):
        assert main(asked(own, "a", name, "--json")) == 0
        found[name] = json.loads(capsys.readouterr().out)["found"]
    assert found["b"]["pictures"] == found["far"]["pictures"] == 120
    assert found["far"]["frechet"] > 3 * found["b"]["frechet"]
    low, high = (found["b"]["kernel"]["value"] + way * 2.1 * found["b"]["kernel"]["error"] for way in (-1, 1))
    assert low < 0 < high
    assert found["far"]["kernel"]["value"] > high
    assert main(asked(own, "a", "b")) == 0
    said = capsys.readouterr().out
    assert "Fréchet" in said
    assert "floor, two halves of the real ones: Fréchet" in said


def test_the_features_are_those_of_every_picture_in_order(own: Path) -> None:
    extract = folders.own_features(f"{own / 'mine.py'}:corner")
    found = folders.features_of(own / "b", extract)
    seen = [np.asarray(Image.open(path)) for path in sorted((own / "b").iterdir())]
    images = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).double() / 127.5 - 1
    torch.testing.assert_close(found, images[:, :, :3, :3].flatten(1), rtol=1e-6, atol=1e-6)
    one, other = found[:60], found[60:120]
    assert folders.between(one, other).frechet == distances.frechet(*map(distances.statistics, (one, other)))


def test_the_shipped_classifier_judges_as_the_quality_tables_do(tmp_path: Path, capsys) -> None:
    (tmp_path / "set").mkdir()
    pictures = trial._images(trial.shipped("25 steps"))[:100]
    for i, picture in enumerate(pictures):
        grey = ((picture[0] + 1) * 127.5).round().to(torch.uint8).numpy()
        Image.fromarray(grey).save(tmp_path / "set" / f"{i:04}.png")
    assert main(["distance", str(tmp_path / "set"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = folders.between(trial.shipped("25 steps").set.features[:100], load_real().train)
    assert found["found"]["frechet"] == pytest.approx(expected.frechet, rel=1e-5)
    assert found["found"]["kernel"]["value"] == pytest.approx(expected.kernel.value, rel=1e-4)
    real = folders.between(real_test(100).set.features, load_real().train)
    assert real.kernel.value < found["found"]["kernel"]["value"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["a", "nowhere"], "cannot read the folder"),
        (["a", "empty"], "holds 0 pictures"),
        (["a", "mixed"], "is 3×9×9, and 0000.png is 3×8×8"),
        (["a", "torn"], "cannot be read as a picture"),
        (["a", "grey"], "features of 27 and of 9 numbers"),
        (["a", "b", "--features", "mine.py"], "name it package.module:function"),
        (["a", "b", "--features", "no.py:f"], "there is no file no.py"),
        (["a", "b", "--features", "{mine}:number"], "has no function called 'number'"),
        (["a", "b", "--features", "{mine}:wrong"], "it returned [100, 3, 8, 8] for 100 images"),
        (["a", "b", "--features", "{mine}:fails"], "no network at home"),
        (["a", "b", "--features", "{mine}:nan"], "are NaN or infinite"),
        (["a", "--features", "{mine}:corner"], "real pictures are missing"),
        (["a", "b", "--inception", "no.pth"], "ception"),
        (["a", "b"], "the classifier takes"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(own: Path, words: list[str], reason: str, capsys) -> None:
    (own / "empty").mkdir()
    folder_of(own / "grey", 60, 3, (8, 8))
    folder_of(own / "mixed", 60, 3)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(own / "mixed" / "z.png")
    folder_of(own / "torn", 60, 3)
    (own / "torn" / "0003.png").write_bytes(b"half a pic")
    named = [str(own / w) if w in ("a", "b", "nowhere", "empty", "mixed", "torn", "grey") else
             w.format(mine=own / "mine.py") for w in words]  # fmt: skip
    features = (
        ["--features", f"{own / 'mine.py'}:corner"] if words[1] in ("nowhere", "empty", "mixed", "torn", "grey") else []
    )
    assert main(["distance", *named, *features]) == 3
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
