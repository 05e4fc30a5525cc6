"""The real pictures' features, and some of the pictures, shipped so that nobody needs the data set.

Made by `python -m bench.quality.real` from Debian's dataset-fashion-mnist and the shipped classifier.
"""

from sampler import start

STOPPED = "stopped"
start.begin(__name__, STOPPED)  # before the imports that take seconds

import argparse
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.quality.classifier import DEFAULT_WEIGHTS, WEIGHTS, _batches, channels, load_classifier
from bench.quality.distances import statistics
from bench.quality.strangeness import nearest, outlines
from sampler.card import sha256
from sampler.data import DEFAULT_ROOT, fashion_mnist
from sampler.errors import UsageError
from sampler.files import replacing

FILE = WEIGHTS / "real_features.npz"
KEPT = 1000  # of each split: as float16 they are 250 kB
NAMES = ("train", "test", "logits", "location", "scale", "correlation", "outlines_apart")


@dataclass(frozen=True, eq=False)
class Real:
    """Features of real pictures, in units of their own spread: over all training images each has mean 0, deviation 1.

    train, test: [1000, 64] float64, the first 100 of each class, the classes in turn, so that any multiple of ten
    is balanced; logits: [1000, 10] of test; location, scale: [64], what `standard` takes off and divides by;
    correlation: [64, 64], of all 60,000 training images. pictures: [1000, 1, 28, 28] in [-1, 1], those of train
    themselves; outlines_apart: [1000], how far the outlines of each of test are from the nearest of its label in train.
    """

    train: Tensor
    test: Tensor
    logits: Tensor
    location: Tensor
    scale: Tensor
    correlation: Tensor
    outlines_apart: Tensor
    pictures: Tensor

    def standard(self, channels: Tensor) -> Tensor:
        """Channel means [N, 64] in those units, float64."""
        return (channels.double() - self.location) / self.scale

    @property
    def all_train(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of all training images."""
        return torch.zeros_like(self.location), self.correlation

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.test)) % 10

    @cached_property
    def outlines(self) -> Tensor:
        """Outlines of the pictures of train, [1000, 1296]."""
        return outlines(self.pictures)


@cache
def load(path: Path = FILE) -> Real:
    """The shipped features; refuses those of another classifier."""
    try:
        with np.load(path) as stored:
            of = str(stored["classifier_sha256"])
            arrays = {name: torch.from_numpy(stored[name]).double() for name in NAMES}
            arrays["pictures"] = torch.from_numpy(stored["pictures"]).float().div(127.5).sub(1)
    except (OSError, KeyError, ValueError) as problem:
        raise UsageError(f"cannot read the real features in {path}: {problem}") from None
    if of != sha256(DEFAULT_WEIGHTS):
        raise UsageError(f"{path} holds features of another classifier; make them again: python -m bench.quality.real")
    return Real(**arrays)


def make(path: Path, data: Path = DEFAULT_ROOT) -> None:
    """Compute the features of both splits and write what ships."""
    classifier = load_classifier()
    kept: dict[str, np.ndarray] = {"classifier_sha256": np.array(sha256(DEFAULT_WEIGHTS))}
    of_both: dict[str, Tensor] = {}
    for name, split in (("train", "train"), ("test", "t10k")):
        images, labels = fashion_mnist(split, data)
        first = torch.stack([torch.nonzero(labels == k)[: KEPT // 10, 0] for k in range(10)], dim=1).flatten()
        of_both[name] = images[first]
        if name == "train":
            found = channels(images, classifier).double()
            location, covariance = statistics(found)
            scale = covariance.diagonal().sqrt()
            kept |= {"location": location.numpy(), "scale": scale.numpy(),
                     "correlation": (covariance / scale / scale[:, None]).numpy()}  # fmt: skip
        else:
            found = channels(images[first], classifier).double()
            kept["logits"] = torch.cat(list(_batches(images[first], classifier, "forward"))).numpy().astype(np.float16)
            first = torch.arange(len(first))
        kept[name] = ((found[first] - location) / scale).numpy().astype(np.float16)
    kept["pictures"] = ((of_both["train"] + 1) * 127.5).round().to(torch.uint8).numpy()
    label = torch.arange(KEPT) % 10
    apart = nearest(outlines(of_both["test"]), label, outlines(of_both["train"]), label)
    kept["outlines_apart"] = apart.numpy().astype(np.float32)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **kept)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality.real", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_ROOT, help="folder of the data set (%(default)s)")
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        make(arguments.out, arguments.data)
    except UsageError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 3
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    start.finish(main, STOPPED)
