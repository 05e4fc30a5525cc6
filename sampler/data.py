"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017) from Debian's package, as tensors in [-1, 1]."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sampler.errors import UsageError

DEFAULT_ROOT = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def fashion_mnist(split: str = "train", root: Path = DEFAULT_ROOT) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] float32 in [-1, 1] and labels [N] int64; split 'train' or 't10k'."""
    root = Path(root)
    images = _read_idx(root / f"{split}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(root / f"{split}-labels-idx1-ubyte.gz", dimensions=1)
    if images.shape[1:] != (28, 28) or len(labels) != len(images) or labels.max(initial=0) >= len(CLASSES):
        height, width = images.shape[1:]
        raise UsageError(
            f"{root} holds {len(images)} images of {height}×{width} and {len(labels)} labels up to "
            f"{labels.max(initial=0)}; Fashion-MNIST's are 28×28, a label in 0…9 each"
        )
    return torch.from_numpy(images).float().div(127.5).sub(1)[:, None], torch.from_numpy(labels).long()


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    if not path.exists():
        raise UsageError(
            f"no data set at {path}; install Debian's package dataset-fashion-mnist "
            "(apt-get install dataset-fashion-mnist) or name its folder with --data"
        )
    raw = gzip.decompress(path.read_bytes())
    head = 4 + 4 * dimensions
    shape = np.frombuffer(raw[4:head].ljust(head - 4, b"\0"), ">i4")
    body = np.frombuffer(raw[head:], np.uint8)
    if len(raw) < head or raw[2] != 8 or raw[3] != dimensions or body.size != shape.prod(dtype=np.int64):
        raise UsageError(f"{path} is not an IDX file of {dimensions}-dimensional bytes")
    return body.reshape(tuple(shape)).copy()
