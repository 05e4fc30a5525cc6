"""The judge of generated images: its intervals, its refusals, and that the shipped weights are the card's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.quality import classifier as judge
from bench.quality.classifier import Accuracy, Classifier, label_accuracy, load_classifier, save_classifier
from bench.quality.train_classifier import Recipe, _shifted, _shuffled, train
from sampler.card import sha256
from sampler.data import CLASSES
from sampler.errors import UsageError

given, st = pytest.importorskip("hypothesis").given, pytest.importorskip("hypothesis.strategies")
binomtest = pytest.importorskip("scipy.stats").binomtest

WEIGHTS = judge.DEFAULT_WEIGHTS.parent
CARD = (WEIGHTS / "README.md").read_text()


@pytest.fixture(scope="module")
def shipped() -> nn.Module:
    return load_classifier()


@pytest.fixture(scope="module")
def sample() -> tuple[Tensor, Tensor, Tensor]:
    """The first test images [500, 1, 28, 28] in [-1, 1], their labels [500] and stored logits [500, 10]."""
    stored = np.load(WEIGHTS / "test_sample.npz")
    images = torch.from_numpy(stored["images"]).float().div(127.5).sub(1)[:, None]
    return images, torch.from_numpy(stored["labels"]).long(), torch.from_numpy(stored["logits"])


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_is_wilsons(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert Accuracy(*counts).interval == pytest.approx(tuple(expected), abs=1e-9)


def test_known_interval() -> None:
    # 81 of 263: Newcombe 1998, Statistics in Medicine 17, Table I, method 3
    assert Accuracy(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_sample_accuracy_is_the_cards(shipped, sample) -> None:
    images, labels, _ = sample
    accuracy = label_accuracy(images, labels, shipped)
    assert f"Right: {accuracy.correct} of {accuracy.total}." in CARD
    assert label_accuracy(images, labels) == accuracy  # the default is the shipped one


def test_logits_are_the_stored_ones(shipped, sample) -> None:
    images, _, logits = sample
    assert not shipped.training
    with torch.inference_mode():
        torch.testing.assert_close(shipped(images), logits, atol=1e-4, rtol=0)


def test_a_batch_does_not_matter(monkeypatch, shipped, sample) -> None:
    images = sample[0][:7]
    together = judge.features(images, shipped)
    monkeypatch.setattr(judge, "BATCH", 3)
    torch.testing.assert_close(judge.features(images, shipped), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(shipped.head(together), torch.cat([shipped(x[None]) for x in images]), atol=1e-4, rtol=0)


def test_features_tell_the_classes_apart(shipped, sample) -> None:
    images, labels, _ = sample
    features = judge.features(images, shipped)
    assert features.shape == (500, 96)
    assert features.isfinite().all()
    means = torch.stack([features[labels == k].mean(0) for k in range(10)])
    assert (torch.cdist(features, means).argmin(1) == labels).float().mean() > 0.85


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_image_is_wrong(value: float, shipped, sample) -> None:
    images = sample[0][:20].clone()
    labels = judge.predictions(images, shipped)
    assert label_accuracy(images, labels, shipped) == Accuracy(20, 20)
    images[3, 0, 5, 5] = value
    images[4] = value
    assert label_accuracy(images, labels, shipped) == Accuracy(18, 20)
    for label in range(10):
        assert label_accuracy(torch.full((1, 1, 28, 28), value), torch.tensor([label]), shipped).correct == 0


def test_half_precision_images_are_judged(shipped, sample) -> None:
    images, labels, _ = sample
    assert label_accuracy(images.bfloat16(), labels, shipped).value > 0.85


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(3, 28, 28), torch.zeros(3)),
        (torch.zeros(3, 1, 32, 32), torch.zeros(3)),
        (torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.zeros(3)),
        (torch.zeros(3, 1, 28, 28), torch.zeros(2)),
        (torch.zeros(3, 1, 28, 28), torch.zeros(3, 1)),
        (torch.zeros(0, 1, 28, 28), torch.zeros(0)),
    ],
)
def test_other_shapes_are_refused(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UsageError):
        label_accuracy(images, labels, Classifier().eval())


def _flip_last_byte(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [lambda raw: b"", lambda raw: raw[:-1000], lambda raw: b"no tensors" * 50, _flip_last_byte],
    ids=["empty", "truncated", "other", "flipped"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(damage(judge.DEFAULT_WEIGHTS.read_bytes()))
    _refused(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "missing.safetensors")
    _refused(tmp_path)


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_another_network_is_refused(tmp_path: Path, change: str) -> None:
    state = Classifier().state_dict()
    weight = state.pop("head.weight")
    if change != "missing":
        state["head.weight"] = weight if change == "extra" else weight[:5]
    if change == "extra":
        state["tail.weight"] = weight.clone()
    path = tmp_path / "w.safetensors"
    save_classifier(state, path)
    assert "another network" in _refused(path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = Classifier().state_dict()
    save_classifier(state, tmp_path / "w.safetensors")
    loaded = load_classifier(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def _refused(path: Path) -> str:
    with pytest.raises(UsageError) as refusal:
        load_classifier(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_card_describes_the_shipped_file() -> None:
    assert f"sha256 `{sha256(judge.DEFAULT_WEIGHTS)}`" in CARD
    assert judge.DEFAULT_WEIGHTS.stat().st_size <= 1_000_000
    assert (WEIGHTS / "test_sample.npz").stat().st_size < 300_000


def test_card_adds_up() -> None:
    correct = int(re.search(r"\(([\d,]+) right", CARD)[1].replace(",", ""))  # type: ignore[index]
    by_class = dict(re.findall(r"^\| (.+?) \| (\d+) of 1000 \|", CARD, re.M))
    assert tuple(by_class) == CLASSES
    assert sum(map(int, by_class.values())) == correct
    low, high = Accuracy(correct, 10_000).interval
    assert f"**{correct / 10_000:.2%}** on the 10,000 test images" in CARD
    assert f"{low:.2%} to {high:.2%}" in CARD
    assert correct >= 9_100


def test_training_repeats_itself_and_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(320) % 10
    images = torch.randn(10, 1, 28, 28, generator=generator).clamp(-1, 1)[labels]  # ten motifs
    recipe = Recipe(images=960, batch=32, warmup_steps=5, ema_decay=0.8)
    first, second = (train(images, labels, recipe, report=lambda line: None) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    trained = Classifier()
    trained.load_state_dict(first)
    assert label_accuracy(images, labels, trained.eval()).value > 0.9


def test_every_epoch_is_a_permutation() -> None:
    batches = list(_shuffled(12, Recipe(images=24, batch=4)))
    epochs = [torch.cat(batches[:3]), torch.cat(batches[3:])]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(12))
    assert not torch.equal(*epochs)


def test_images_are_moved_whole() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 1, 5, 5), -1.0)
    images[:, 0, 2, 2] = 1.0
    moved = _shifted(images, 1)
    assert moved.shape == images.shape
    assert (moved == 1).sum((1, 2, 3)).eq(1).all()
    places = {tuple(place[2:].tolist()) for place in (moved == 1).nonzero()}
    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}
    assert torch.equal(_shifted(images, 0), images)
    assert (_shifted(torch.ones(64, 1, 5, 5), 1) == -1).any()  # black comes in


@pytest.mark.parametrize("total", [50, 200, 400, 1000])
def test_an_interval_holds_its_value_even_where_all_or_none_are_right(total: int) -> None:
    for correct in (0, 1, total - 1, total):
        accuracy = judge.Accuracy(correct, total)
        low, high = accuracy.interval
        assert 0 <= low <= accuracy.value <= high <= 1
