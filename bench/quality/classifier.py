"""The judge of generated Fashion-MNIST images: a small CNN, its features and its label accuracy."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sampler.data import CLASSES
from sampler.errors import UsageError
from sampler.files import replacing

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_WEIGHTS = WEIGHTS / "classifier.safetensors"
BATCH = 500


class Classifier(nn.Module):
    """Four convolutions and two linear layers: [N, 1, 28, 28] in [-1, 1] -> logits [N, 10]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),  # [N, 4, 14, 14]
            *_convolution(4, 32),
            *_convolution(32, 64, stride=2),  # [N, 64, 7, 7]
            *_convolution(64, 64),
            *_convolution(64, 64, stride=2),  # [N, 64, 4, 4]
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 96, bias=False),
            nn.BatchNorm1d(96),
            nn.ReLU(),
        )
        self.head = nn.Linear(96, len(CLASSES))

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees, [N, 96]."""
        return self.layers(images)

    def channels(self, images: Tensor) -> Tensor:
        """Mean of each channel of the last convolution, [N, 64]: texture and shape that the layers above discard."""
        return self.layers[:-4](images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


@dataclass(frozen=True)
class Accuracy:
    """How many of `total` images the classifier gave the label they were meant to have."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927; Brown, Cai & DasGupta 2001, Eq. 4)."""
        z, n, p = 1.959963984540054, self.total, self.value
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        # at 0 or all of them the bound is p itself, which rounding may miss
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def label_accuracy(images: Tensor, labels: Tensor, classifier: nn.Module | None = None) -> Accuracy:
    """Compare predictions for images [N, 1, 28, 28] with labels [N]; non-finite images are wrong."""
    if labels.shape != images.shape[:1] or not len(labels):
        raise UsageError(f"{tuple(labels.shape)} labels for {tuple(images.shape)} images; give one each")
    return Accuracy(int((predictions(images, classifier) == labels.cpu()).sum()), len(labels))


def predictions(images: Tensor, classifier: nn.Module | None = None) -> Tensor:
    """The most likely label of images [N, 1, 28, 28], [N] on the CPU; -1 where an image is not finite."""
    likeliest = torch.cat([logits.argmax(1) for logits in _batches(images, classifier, "forward")])
    return likeliest.where(images.isfinite().flatten(1).all(1).cpu(), -1)


def features(images: Tensor, classifier: nn.Module | None = None) -> Tensor:
    """Penultimate activations of images [N, 1, 28, 28], [N, 96] on the CPU; NaN images give NaN."""
    return torch.cat(list(_batches(images, classifier, "features")))


def channels(images: Tensor, classifier: nn.Module | None = None) -> Tensor:
    """Channel means of images [N, 1, 28, 28], [N, 64] on the CPU: the space in which sets are compared."""
    return torch.cat(list(_batches(images, classifier, "channels")))


@torch.inference_mode()
def _batches(images: Tensor, classifier: nn.Module | None, method: str) -> Iterator[Tensor]:
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28) or not images.is_floating_point():
        raise UsageError(
            f"{images.dtype} images of shape {tuple(images.shape)}; the classifier takes "
            "floating-point [N, 1, 28, 28] in [-1, 1]"
        )
    classifier = _default_classifier() if classifier is None else classifier
    device = next(classifier.parameters()).device
    for batch in images.split(BATCH):
        yield getattr(classifier, method)(batch.to(device, torch.float32)).cpu()


@cache
def _default_classifier() -> nn.Module:
    return load_classifier()


def load_classifier(path: Path = DEFAULT_WEIGHTS) -> nn.Module:
    """The trained classifier in eval mode; refuses a damaged file and one of another network."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            recorded = (file.metadata() or {}).get("tensors_sha256")
    except (OSError, SafetensorError) as problem:
        raise UsageError(f"cannot read classifier weights from {path}: {problem}") from None
    classifier = Classifier()
    for name, value in classifier.state_dict().items():
        found = tuple(state[name].shape) if name in state else "missing"
        if found != tuple(value.shape):
            raise UsageError(f"{path} holds another network: {name} is {found}, should be {tuple(value.shape)}")
    if extra := sorted(state.keys() - classifier.state_dict().keys()):
        raise UsageError(f"{path} holds another network: unexpected {extra[0]}")
    if recorded != _fingerprint(state):
        raise UsageError(f"{path} is damaged: its tensors do not match the checksum saved with them")
    classifier.load_state_dict(state)
    return classifier.eval()


def save_classifier(state: dict[str, Tensor], path: Path) -> None:
    """Write weights as `load_classifier` reads them, with a checksum that the format itself lacks."""
    state = {name: value.contiguous() for name, value in state.items()}
    with replacing(path) as partial:
        save_file(state, partial, metadata={"tensors_sha256": _fingerprint(state)})
        partial.chmod(0o644)  # safetensors leaves it unreadable for others


def _fingerprint(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()
