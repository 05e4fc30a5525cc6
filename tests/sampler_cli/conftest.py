"""A tiny data set in Fashion-MNIST's format, weights that no one trained, and a way to run commands."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sampler.__main__ import main
from sampler.unet import UNet, UNetConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A folder with 48 training and 40 test images in gzipped IDX files."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, n in (("train", 48), ("t10k", 40)):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory) -> Path:
    """Weights of the shipped model's shape."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(UNet(UNetConfig()).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def trained(tiny_data, tmp_path_factory) -> Path:
    """The folder of a training run of 192 images in batches of 16."""
    out = tmp_path_factory.mktemp("trained")
    arguments = ["--data", tiny_data, "--images", 192, "--batch", 16, "--out", out, "--checkpoint-s", 0]
    assert main(["train", *map(str, arguments)]) == 0
    return out


@pytest.fixture(scope="session")
def command():
    """Start `python -m MODULE ARGUMENTS…` from the checkout, in a process of its own."""

    def start(*arguments, module: str = "sampler") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start
