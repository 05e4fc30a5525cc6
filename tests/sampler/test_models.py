"""The shipped models: their sizes, their weights, and files that are not their weights."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from sampler import models
from sampler.errors import UsageError
from sampler.models import RECIPES, Recipe, checked_device, load_model, load_weights
from sampler.unet import UNet, UNetConfig

SMALL = UNetConfig(image_size=8, patch=2, widths=(8, 16), heads=2, classes=3)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(UNet(SMALL).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "parameters"), [("fashion-mnist", 0.45), ("fashion-mnist-32", 7.2), ("cifar10-size", 37.8)]
)
def test_sizes_are_as_described(name, parameters):
    with torch.device("meta"):
        network = UNet(RECIPES[name].config)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(parameters, rel=0.015)
    assert f"{parameters} M" in RECIPES[name].about


def test_every_recipe_is_tested_for_its_size():
    assert set(RECIPES) == {"fashion-mnist", "fashion-mnist-32", "cifar10-size"}


@pytest.mark.parametrize("config", [r.config for r in RECIPES.values()])
def test_every_size_has_a_forward_pass(config):
    """Narrow copies of the shipped layouts: skips, resolutions and channels fit together."""
    narrow = dataclasses.replace(config, widths=tuple(8 * w // min(config.widths) for w in config.widths), heads=1)
    network = UNet(narrow).eval()
    x = torch.randn(2, config.image_channels, config.image_size, config.image_size)
    with torch.no_grad():
        assert network(x, torch.tensor([0, 999]), torch.tensor([0, 10])).shape == x.shape


def test_the_shipped_model():
    model = load_model()
    assert (model.name, model.shape, model.classes, model.null_label) == ("fashion-mnist", (1, 28, 28), 10, 10)
    assert model.trained
    assert not model.network.training
    assert model.parameters == sum(p.numel() for p in model.network.parameters())
    assert all(bool(p.any()) and bool(torch.isfinite(p).all()) for p in model.network.parameters())
    state = load_file(models.WEIGHTS / RECIPES["fashion-mnist"].weights)
    assert torch.equal(state["stem.weight"], model.network.stem.weight)


def test_the_shipped_model_tells_noise_from_image():
    """On noised plain images its ε is near the truth, which no untrained network's is."""
    model = load_model()
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((8, 1, 28, 28), -1.0)
    x0[:, :, 4:24, 8:20] = 0.5  # a bright shirt-sized block
    t = torch.tensor([50, 100, 200, 300, 400, 500, 700, 900])
    noise = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        out = model.network(model.schedule.add_noise(x0, t, noise), t, torch.zeros(8, dtype=torch.int64))
    assert float((out - noise).square().mean()) < 0.2  # 1 for a network that answers 0


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone(monkeypatch):
    monkeypatch.setitem(RECIPES, "small", Recipe(SMALL, None, "for this test"))
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first = load_model("small")
    assert torch.equal(torch.rand(3), expected)
    assert not first.trained
    again = load_model("small")
    for left, right in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(left, right)
        assert bool(left.any())  # no layer without work


@pytest.mark.gpu
def test_random_weights_leave_the_gpus_generator_alone(monkeypatch):
    monkeypatch.setitem(RECIPES, "small", Recipe(SMALL, None, "for this test"))
    before = torch.cuda.get_rng_state()
    load_model("small")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_weights_survive_the_file(weights):
    network = UNet(SMALL)
    load_weights(network, weights)
    for name, value in load_file(weights).items():
        assert torch.equal(network.state_dict()[name], value)


def test_your_own_weights_are_used(weights, monkeypatch):
    monkeypatch.setitem(RECIPES, "small", Recipe(SMALL, None, "for this test"))
    model = load_model("small", weights=weights)
    assert model.trained
    assert torch.equal(model.network.stem.weight, load_file(weights)["stem.weight"])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: whole[:100], id="a part of the header"),
        pytest.param(lambda whole: whole[:-100], id="truncated"),
        pytest.param(lambda whole: b"\xff" * 8 + whole[8:], id="absurd header length"),
        pytest.param(lambda whole: b"not weights at all" * 100, id="text"),
        pytest.param(lambda whole: whole[:9] + b"\x00" * 40 + whole[49:], id="corrupt header"),
    ],
)
def test_damaged_weights_are_a_sentence(damage, weights):
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(UsageError, match=r"weights.safetensors is not a readable safetensors file \(.+\)$"):
        load_weights(UNet(SMALL), weights)


def test_missing_weights_are_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"no weights at .*none.safetensors"):
        load_weights(UNet(SMALL), tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="is not a readable safetensors file"):
        load_weights(UNet(SMALL), tmp_path)


def test_weights_of_another_architecture_are_a_sentence(weights):
    wider = dataclasses.replace(SMALL, widths=(16, 32))
    with pytest.raises(UsageError, match=r"another architecture: '.*' is \[.*\], the network's is \[.*\]"):
        load_weights(UNet(wider), weights)
    deeper = dataclasses.replace(SMALL, blocks=2)
    with pytest.raises(UsageError, match=r"another architecture: it lacks 'down.0.blocks.1"):
        load_weights(UNet(deeper), weights)
    shallower = dataclasses.replace(SMALL, attention=())
    with pytest.raises(UsageError, match=r"another architecture: it has 'down.1.blocks.0.1.norm"):
        load_weights(UNet(shallower), weights)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="unknown model 'fashon-mnist'; did you mean 'fashion-mnist'"):
        load_model("fashon-mnist")
    with pytest.raises(UsageError, match="unknown model '???'; known: cifar10-size, fashion-mnist".replace("?", r"\?")):
        load_model("???")


def test_devices(monkeypatch):
    assert checked_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="unknown device 'cud'; did you mean 'cuda'"):
        checked_device("cud")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        checked_device("gpu")
    for real_but_unsupported in ("mps", "meta"):
        with pytest.raises(UsageError, match=f"unknown device '{real_but_unsupported}'"):
            checked_device(real_but_unsupported)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="'cuda' was asked for, but PyTorch sees no CUDA device here; use 'cpu'"):
        load_model("fashion-mnist", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checked_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="device 'cuda:7' does not exist; there are 2"):
        checked_device("cuda:7")
