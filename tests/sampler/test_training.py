"""Training that is killed and resumed is the training that was not, bit for bit."""

import csv
import os

import pytest
import torch

from sampler import training
from sampler.errors import UsageError
from sampler.training import TrainingOptions, train
from sampler.unet import UNet, UNetConfig

CONFIG = UNetConfig(image_size=8, patch=2, widths=(8, 16), heads=2, classes=3)
OPTIONS = TrainingOptions(images=8 * 110, batch=8, warmup_steps=20, ema_decay=0.9)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def images():
    return torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def labels():
    return torch.arange(24) % 3


def fresh(config=CONFIG):
    torch.manual_seed(0)
    return UNet(config)


def killed_at(line: int):
    """A report that ends the run at its line-th line, after the checkpoint of the step before."""
    lines = []

    def report(text):
        lines.append(text)
        if len(lines) == line:
            raise Killed

    return report


@pytest.fixture(scope="module")
def uninterrupted(schedule, images, labels, tmp_path_factory):
    network, folder = fresh(), tmp_path_factory.mktemp("whole")
    ema = train(network, schedule, images, labels, OPTIONS, folder, report=lambda line: None)
    return ema, network.state_dict(), folder


def same_weights(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_resumed_it_is_bit_identical(uninterrupted, schedule, images, labels, tmp_path):
    ema, weights, _ = uninterrupted
    with pytest.raises(Killed):
        train(fresh(), schedule, images, labels, OPTIONS, tmp_path, 0.0, report=killed_at(1))
    assert 0 < torch.load(tmp_path / "checkpoint.pt")["step"] < 110

    torch.manual_seed(99)  # neither the global generator nor the cached permutation carries anything over
    training._permutation.clear()
    network, lines = UNet(CONFIG), []
    resumed = train(network, schedule, images, labels, OPTIONS, tmp_path, report=lines.append)
    assert lines[0].startswith("resumed at image ")
    same_weights(resumed, ema)
    same_weights(network.state_dict(), weights)


def test_a_finished_run_gives_its_weights_again(uninterrupted, schedule, images, labels):
    ema, _, folder = uninterrupted
    same_weights(train(fresh(), schedule, images, labels, OPTIONS, folder, report=lambda line: None), ema)


def test_it_learns(uninterrupted, schedule, images, labels):
    """The loss falls, and the averaged weights are neither the first nor the last ones."""
    ema, weights, folder = uninterrupted
    with open(folder / "loss.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["images"]) for row in rows] == [800, 880]
    losses = [float(row["loss"]) for row in rows]
    assert losses[1] < losses[0] < 1.05  # a network that answers 0 has a loss of 1
    assert losses[1] < 0.9
    for name in ("stem.weight", "head.weight"):
        assert not torch.equal(ema[name], weights[name])
        assert not torch.equal(ema[name], fresh().state_dict()[name])


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch": 4}, {"learning_rate": 2e-3}])
def test_other_options_give_other_weights_and_are_refused(change, uninterrupted, schedule, images, labels, tmp_path):
    _, _, folder = uninterrupted
    options = TrainingOptions(**{**OPTIONS.__dict__, **change})
    with pytest.raises(UsageError, match=r"checkpoint.pt belongs to a run with other options \(.*'seed': 0"):
        train(fresh(), schedule, images, labels, options, folder)
    short = TrainingOptions(**{**options.__dict__, "images": 80})
    reference = TrainingOptions(**{**OPTIONS.__dict__, "images": 80})
    other = train(fresh(), schedule, images, labels, short, tmp_path / "a", report=lambda line: None)
    plain = train(fresh(), schedule, images, labels, reference, tmp_path / "b", report=lambda line: None)
    assert not torch.equal(other["head.weight"], plain["head.weight"])


def test_a_checkpoint_is_replaced_atomically(schedule, images, labels, tmp_path, monkeypatch):
    """Killed while it writes, it leaves the checkpoint of before."""
    short = TrainingOptions(images=24, batch=8)
    train(fresh(), schedule, images, labels, short, tmp_path, report=lambda line: None)
    whole = (tmp_path / "checkpoint.pt").read_bytes()

    def half_written(state, path):
        path.write_bytes(whole[:1000])
        raise Killed

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(Killed):
        train(fresh(), schedule, images, labels, short, tmp_path, report=lambda line: None)
    assert (tmp_path / "checkpoint.pt").read_bytes() == whole


def test_only_whole_files_are_put_in_place(schedule, images, labels, tmp_path, monkeypatch):
    moved = []
    replace = os.replace

    def watched(source, target):
        torch.load(source, weights_only=True)
        moved.append((source.name, target.name))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    train(fresh(), schedule, images, labels, TrainingOptions(images=24, batch=8), tmp_path, report=lambda _: None)
    assert moved == [("checkpoint.partial", "checkpoint.pt")]


def test_a_checkpoint_of_other_data_is_a_sentence(uninterrupted, schedule, images, labels):
    for others in ((images.flip(0), labels), (images, labels.flip(0)), (images[:16], labels[:16])):
        with pytest.raises(UsageError, match=r"checkpoint.pt belongs to a run on other data; name another --out"):
            train(fresh(), schedule, *others, OPTIONS, uninterrupted[2])


@pytest.mark.parametrize("content", [[1], {}, {"options": 1}])
def test_a_file_that_is_no_checkpoint_is_a_sentence(content, schedule, images, labels, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match=r"checkpoint.pt is not a readable checkpoint; remove it"):
        train(fresh(), schedule, images, labels, OPTIONS, tmp_path)


@pytest.mark.parametrize("damage", [lambda whole: whole[:1000], lambda whole: b"", lambda whole: b"x" * 500])
def test_a_damaged_checkpoint_is_a_sentence(damage, uninterrupted, schedule, images, labels, tmp_path):
    whole = (uninterrupted[2] / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(damage(whole))
    with pytest.raises(UsageError, match=r"checkpoint.pt is not a readable checkpoint; remove it"):
        train(fresh(), schedule, images, labels, OPTIONS, tmp_path)


def test_a_checkpoint_of_another_network_is_a_sentence(uninterrupted, schedule, images, labels):
    other = fresh(UNetConfig(image_size=8, patch=2, widths=(8, 8), heads=2, classes=3))
    with pytest.raises(UsageError, match="belongs to a network of another architecture"):
        train(other, schedule, images, labels, OPTIONS, uninterrupted[2])


def test_data_that_do_not_fit_are_refused(schedule, images, labels, tmp_path):
    with pytest.raises(UsageError, match="24 images were given with 23 labels"):
        train(fresh(), schedule, images, labels[:23], OPTIONS, tmp_path)
    with pytest.raises(UsageError, match="a batch of 8 cannot be taken from 5 images"):
        train(fresh(), schedule, images[:5], labels[:5], OPTIONS, tmp_path)


def test_every_image_is_seen_once_an_epoch():
    options = TrainingOptions(batch=8)
    for first in (0, 3):
        epoch = torch.cat([training._batch_of_epoch(24, options, step) for step in range(first, first + 3)])
        assert sorted(epoch.tolist()) == list(range(24))
    other = torch.cat([training._batch_of_epoch(24, options, step) for step in range(3, 6)])
    assert not torch.equal(torch.cat([training._batch_of_epoch(24, options, s) for s in range(3)]), other)
    again = training._batch_of_epoch(24, options, 1)
    assert not torch.equal(training._batch_of_epoch(24, TrainingOptions(batch=8, seed=1), 1), again)


def test_the_random_numbers_of_seed_0_stay_what_they_were():
    """The shipped weights were trained with them."""
    for number in (0, 1, 14_061, (1 << 31) + 14):
        plain = torch.Generator().manual_seed(number)
        assert torch.equal(training._generator(0, number).get_state(), plain.get_state())


def test_seeds_do_not_share_their_random_numbers():
    """A CPU generator drops the upper half of a 64-bit seed, so the seed must be in the lower."""
    numbers = [0, 1, 2, 100_000, 1 << 31, (1 << 31) + 1]
    drawn = {
        float(torch.rand((), dtype=torch.float64, generator=training._generator(seed, number)))
        for seed in range(50)
        for number in numbers
    }
    assert len(drawn) == 50 * len(numbers)


def test_some_labels_are_dropped_and_the_rest_left(schedule, images, labels):
    """For guidance: about a tenth of the labels is the null label, and the caller's labels stay."""
    seen = []

    class Spy(UNet):
        def forward(self, x, t, condition=None):
            seen.append((t, condition))
            return super().forward(x, t, condition)

    network = Spy(CONFIG)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    before = labels.clone()
    for step in range(60):
        training._training_step(network, schedule, images, labels, OPTIONS, step, optimizer)
    assert torch.equal(labels, before)
    dropped = torch.cat([label for _, label in seen]) == network.null_label
    n = len(dropped)
    assert abs(int(dropped.sum()) - 0.1 * n) < 4 * (0.1 * 0.9 * n) ** 0.5
    timesteps = torch.cat([t for t, _ in seen]).double()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert abs(float(timesteps.mean()) - 499.5) < 4 * 289 / n**0.5
    # stratified: one timestep in each eighth of the schedule in every batch
    assert all(sorted((t * 8 // 1000).tolist()) == list(range(8)) for t, _ in seen)
