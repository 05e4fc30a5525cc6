"""`python -m sampler train` from a data folder to a weights file, killed on the way and not."""

import csv
import gzip
import json
import shutil
import signal
import time

import pytest
import torch
from PIL import Image

from sampler import card, data, schedule, training
from sampler.__main__ import main
from sampler.models import load_model, load_weights
from sampler.training import TrainingOptions, train
from sampler.unet import UNet, UNetConfig
from tests.patience import PATIENCE_S

IMAGES, BATCH = 16 * 12, 16  # as the fixture `trained` has them


def arguments(tiny_data, out):
    return [
        "train",
        "--data",
        tiny_data,
        "--images",
        IMAGES,
        "--batch",
        BATCH,
        "--out",
        out,
        "--checkpoint-s",
        0,
    ]


def test_it_does_what_the_plain_calls_do(trained, tiny_data, tmp_path):
    torch.manual_seed(0)
    network = UNet(UNetConfig())
    images, labels = data.fashion_mnist(root=tiny_data)
    options = TrainingOptions(images=IMAGES, batch=BATCH)
    ema = train(network, schedule.linear(), images, labels, options, tmp_path, report=lambda line: None)
    load_weights(network, trained / "fashion-mnist.safetensors")
    assert all(torch.equal(value, ema[name]) for name, value in network.state_dict().items())


def test_it_leaves_weights_loss_and_record(trained):
    weights = trained / "fashion-mnist.safetensors"
    assert load_model("fashion-mnist", weights=weights).trained
    record = card.read_record(trained / "fashion-mnist.json")
    assert record.sha256 == card.sha256(weights)
    assert record.options == TrainingOptions(images=IMAGES, batch=BATCH)
    assert (record.parameters, record.data_images, record.threads) == (451_652, 48, 1)
    assert f"--images {IMAGES} --batch {BATCH} --seed 0" in record.command
    with open(trained / "loss.csv", newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["loss"]) == record.final_loss
    assert Image.open(trained / "loss.png").width > 500
    assert not list(trained.glob("*.partial")) + list(trained.glob(".*"))


def test_a_record_that_is_damaged_or_missing_is_a_sentence(trained, tmp_path):
    with pytest.raises(card.UsageError, match="no training record"):
        card.read_record(tmp_path / "none.json")
    facts = json.loads((trained / "fashion-mnist.json").read_text())
    del facts["seconds"]
    (tmp_path / "less.json").write_text(json.dumps(facts))
    with pytest.raises(card.UsageError, match="not a training record"):
        card.read_record(tmp_path / "less.json")


def test_other_options_do_not_go_on_from_a_checkpoint(trained, tiny_data, capsys):
    changed = [*arguments(tiny_data, trained), "--seed", 1]
    assert main(list(map(str, changed))) == 3
    err = capsys.readouterr().err
    assert "other options" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow  # two starts of Python with PyTorch
def test_killed_and_resumed_it_ends_in_the_same_bits(trained, tiny_data, tmp_path, command):
    process = command(*arguments(tiny_data, tmp_path))
    wait_for(tmp_path / "checkpoint.pt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert not (tmp_path / "fashion-mnist.safetensors").exists()

    process = command(*arguments(tiny_data, tmp_path))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "resumed at image" in err
    weights = tmp_path / "fashion-mnist.safetensors"
    assert f"sha256 {card.sha256(weights)}" in out
    assert weights.read_bytes() == (trained / "fashion-mnist.safetensors").read_bytes()


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_is_one_sentence_that_says_how_to_go_on(tiny_data, tmp_path, monkeypatch, capsys):
    step = training._training_step

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(training, "_training_step", interrupted)
    assert main(list(map(str, arguments(tiny_data, tmp_path)))) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\npython -m sampler: interrupted; the same command goes on from the last checkpoint\n"


def wait_for(path, process) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("labels-idx1", b"abc", "is not an IDX file of 1-dimensional bytes"),
    ("images-idx3", bytes([0, 0, 8, 3, 0, 0, 0, 1]), "is not an IDX file of 3-dimensional bytes"),
    ("labels-idx1", bytes([0, 0, 8, 1, 0, 0, 0, 48]) + bytes([77] * 48), "48 labels up to 77; Fashion-MNIST's are"),
    ("labels-idx1", bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]), "holds 48 images of 28×28 and 2 labels"),
    ("images-idx3", bytes([0, 0, 8, 3, 0, 0, 0, 48, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(192), "48 images of 2×2"),
])  # fmt: skip
def test_data_that_are_not_fashion_mnist_are_a_sentence(name, content, said, tiny_data, tmp_path, capsys):
    folder = shutil.copytree(tiny_data, tmp_path / "data")
    (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    assert main([str(a) for a in arguments(folder, tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
