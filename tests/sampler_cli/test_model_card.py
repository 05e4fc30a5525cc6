"""The model card: samples in shards that can be resumed, a text whose numbers are computed."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from bench.quality import classifier, model_card, model_samples
from bench.quality.model_samples import Request
from sampler import card, trajectory
from sampler.errors import UsageError
from sampler.generate import sample, to_unit
from sampler.guidance import batched_cfg
from sampler.models import load_model
from sampler.variants import Variant


@pytest.fixture(scope="session")
def untrained_judge(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "classifier.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier.save_classifier(classifier.Classifier().state_dict(), path)
    return path


def arguments(trained, data, judge, folder, *more) -> list[str]:
    return list(map(str, [
        "--training", trained, "--data", data, "--classifier", judge, "--out", folder / "card",
        "--cache", folder / "cache", "--per-class", 2, "--batch", 10, "--steps", 2, "--processes", 1, *more,
    ]))  # fmt: skip


@pytest.mark.slow  # starts of Python with PyTorch
def test_it_writes_a_card_and_goes_on_from_shards(trained, tiny_data, untrained_judge, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")  # drawn eagerly, to be quick
    asked = arguments(trained, tiny_data, untrained_judge, tmp_path)
    assert model_card.main(asked) == 0
    out = tmp_path / "card"
    text = (out / "README.md").read_text()
    assert card.sha256(trained / "fashion-mnist.safetensors") in text
    assert "451,652 parameters" in text
    assert "python -m sampler train --model fashion-mnist --images 192 --batch 16 --seed 0" in text
    assert "python -m bench.quality.model_card --per-class 2 --guidance 3 --steps 2 --seed 0 --batch 10" in text
    assert {p.name for p in out.iterdir()} == {"README.md"} | {
        f"fashion-mnist{end}" for end in (".json", ".safetensors", "-loss.csv", "-loss.png", "-samples.png")
    }
    shards = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(shards) == 4
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards}
    shards[1].unlink()
    capsys.readouterr()
    assert model_card.main(asked) == 0
    assert "3 of 4 shards are there already" in capsys.readouterr().err
    assert shards[1].read_bytes() == before[shards[1]][0]
    assert all(path.stat().st_mtime_ns == before[path][1] for path in shards if path != shards[1])
    assert (out / "README.md").read_text() == text

    # the card's own folder is enough to write it again
    shutil.rmtree(out / "fashion-mnist-loss.png", ignore_errors=True)
    again = ["--training", str(out), *asked[2:]]
    assert model_card.main(again) == 0
    assert (out / "README.md").read_text() == text


def test_a_shard_is_what_sample_draws(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    weights = trained / "fashion-mnist.safetensors"
    request = Request("fashion-mnist", weights, per_class=2, guidance=3.0, steps=2, seed=4, batch=10)
    paths = [tmp_path / f"{i}.npz" for i in range(request.shards)]
    for i, path in enumerate(paths):
        model_samples._draw_shard(request, i, path)
    images, labels = model_samples._read(paths)
    model = load_model(weights=weights)
    expected = sample(
        model,
        trajectory.ancestral(model.schedule, trajectory.spaced(model.schedule, 2)),
        labels=labels, guidance=3.0, seed=4, batch_size=10, progress=False,
        variant=Variant("eager", guide=batched_cfg),
    ).images  # fmt: skip
    assert torch.equal(labels, torch.arange(10).repeat(2))
    assert float((to_unit(images) - to_unit(expected)).abs().max()) <= 0.5 / 255 + 1e-6


def test_requests_that_differ_have_folders_that_differ(trained):
    weights = trained / "fashion-mnist.safetensors"
    base = {"model": "fashion-mnist", "weights": weights, "per_class": 10, "guidance": 3.0}
    changes = [{}, {"guidance": 1.0}, {"steps": 50}, {"seed": 1}, {"batch": 50}]
    assert len({Request(**(base | change)).folder for change in changes}) == len(changes)


@pytest.mark.parametrize("wrong", [{"batch": 15}, {"batch": 0}, {"per_class": 0}, {"per_class": 15}])
def test_uneven_shards_are_refused(wrong):
    asked = {"model": "fashion-mnist", "weights": Path("w"), "per_class": 50, "guidance": 1.0, "batch": 100}
    with pytest.raises(UsageError, match="multiple"):
        Request(**(asked | wrong))


def test_judgement_counts_classes_and_mistakes():
    class Sees(torch.nn.Module):
        """Reads the label that is written into the first pixel."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()

    labels = torch.arange(10).repeat_interleave(4)
    images = torch.zeros(40, 1, 28, 28)
    images[:, 0, 0, 0] = labels
    images[4:7, 0, 0, 0] = torch.tensor([3.0, 3.0, 5.0])  # three of four trousers are something else
    judged = model_card.judge(images, labels, Sees())
    assert (judged.overall.correct, judged.overall.total) == (37, 40)
    assert [a.correct for a in judged.per_class] == [4, 1, *[4] * 8]
    assert judged.mistakes[1] == (3, 2)
    assert judged.mistakes[0][1] == 0
    assert "*trouser*: 1 of 4 are recognised, and 2 are taken for *dress*" in model_card._weakest(judged)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--processes", "0"], "--processes 0"),
        (["--training", "{tmp}"], "no training record"),
        (["--batch", "7"], "multiple"),
        (["--classifier", "{tmp}/none"], "classifier weights"),
        (["--bacth", "7"], "--bacth"),
    ],
)
def test_mistakes_are_sentences(change, says, trained, tiny_data, untrained_judge, tmp_path, capsys):
    change = [part.format(tmp=tmp_path) for part in change]
    assert model_card.main([*arguments(trained, tiny_data, untrained_judge, tmp_path), *change]) == 3
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


def test_weights_must_be_those_of_the_record(trained, tiny_data, untrained_judge, random_weights, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    shutil.copytree(trained, mixed)
    shutil.copyfile(random_weights, mixed / "fashion-mnist.safetensors")
    assert model_card.main(arguments(mixed, tiny_data, untrained_judge, tmp_path)) == 3
    assert "is not the file that" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "card" / "README.md")
