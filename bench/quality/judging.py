"""Every figure of a set of pictures: what the quality table shows, from the shipped classifier and real features."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.quality import distances, real
from bench.quality.classifier import WEIGHTS, Accuracy, _batches, channels
from bench.quality.equivalence import Loss, Set, kernel_distance, losses
from bench.quality.strangeness import nearest, outlines, strangeness
from sampler.errors import UsageError

SAMPLE = WEIGHTS / "test_sample.npz"
Features = Callable[[Tensor], Tensor]  # images [N, C, H, W] in [-1, 1] -> features [N, D]


@dataclass(frozen=True)
class Figures:
    """What N pictures are worth. losses: against the reference's at the same seeds and labels, if it was given.

    alike: of how many Fréchet distance, precision, recall and score are: their bias depends on it, so that only
    figures of as many may be compared. recognised: the share of each label's pictures that is recognised as that label,
    in the labels' order. strangeness: the mean over the pictures; strange: of each label's. Results that were stored
    before have none of these.
    """

    pictures: int
    alike: int
    kernel: Loss
    frechet: float
    precision: float
    recall: float
    correct: int
    score: float
    diversity: float
    losses: dict[str, Loss]
    recognised: list[float] = field(default_factory=list)
    strangeness: float | None = None
    strange: list[float] = field(default_factory=list)

    @property
    def strangest_label(self) -> tuple[int, float] | None:
        """The label whose pictures are the strangest, and how strange they are; None where that was not stored."""
        if not self.strange:
            return None
        most = max(range(len(self.strange)), key=self.strange.__getitem__)
        return most, self.strange[most]

    @property
    def worst_label(self) -> tuple[int, float] | None:
        """The label that is recognised least, and the share that is; None where that was not stored."""
        if not self.recognised:
            return None
        worst = min(range(len(self.recognised)), key=self.recognised.__getitem__)
        return worst, self.recognised[worst]

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(self.correct, self.pictures)

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Figures":
        found = {name: Loss(**loss) for name, loss in stored["losses"].items()}
        return cls(**{**stored, "kernel": Loss(**stored["kernel"]), "losses": found})


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures as the classifier sees them; images [N, 1, 28, 28], where they are at hand."""

    set: Set
    logits: Tensor
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.set)

    def first(self, count: int) -> "Seen":
        return Seen(self.set.first(count), self.logits[:count], None if self.images is None else self.images[:count])


def see(images: Tensor, labels: Tensor, classifier: nn.Module | None = None) -> Seen:
    """Images [N, 1, 28, 28] in [-1, 1], meant to have labels [N]; every one must be finite."""
    if not bool(images.isfinite().all()):
        raise UsageError("some images hold NaN or infinity and cannot be judged")
    features = real.load().standard(channels(images, classifier))
    logits = torch.cat(list(_batches(images, classifier, "forward")))
    return Seen(Set(features, logits.argmax(1) == labels, labels, strange(images, features, labels)), logits, images)


def strange(images: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """How strange pictures [N, 1, 28, 28] with features [N, 64] and labels [N] are among the real ones that ship, [N]:
    the mean of both spaces."""
    known = real.load()
    by_features = nearest(features, labels, known.train, known.labels)
    by_outlines = nearest(outlines(images), labels, known.outlines, known.labels)
    return _ranked(by_features, by_outlines, labels)


def _ranked(by_features: Tensor, by_outlines: Tensor, labels: Tensor) -> Tensor:
    known = real.load()
    return (strangeness(by_features, labels, _calibration(), known.labels)
            + strangeness(by_outlines, labels, known.outlines_apart, known.labels)) / 2  # fmt: skip


@cache
def _calibration() -> Tensor:
    """Distances of the real test images that ship to the nearest of the training images that do."""
    known = real.load()
    return nearest(known.test, known.labels, known.train, known.labels)


def judge(seen: Seen, reference: Seen | None = None, alike: int | None = None) -> Figures:
    """All figures; reference: as many or more; alike: judge what N biases by no more than so many.

    Precision and recall are against as many real training images as there are pictures.
    """
    those, known, n = seen.set, real.load(), len(seen)
    few = seen.first(min(n, n if alike is None else alike))
    equal = min(len(few), len(known.train))
    precision, recall = distances.precision_recall(few.set.features[:equal], known.train[:equal])
    return Figures(
        pictures=n,
        alike=len(few),
        kernel=kernel_distance(those, known.train),
        frechet=distances.frechet(distances.statistics(few.set.features), known.all_train),
        precision=precision,
        recall=recall,
        correct=int(those.correct.sum()),
        score=distances.classifier_score(few.logits),
        diversity=distances.diversity(those.features, those.labels),
        losses={} if reference is None else losses(those, reference.set.first(n), known.train),
        recognised=_by_label(those.correct, those.labels),
        strangeness=float(those.strange.mean()),
        strange=_by_label(those.strange, those.labels),
    )


def _by_label(values: Tensor, labels: Tensor) -> list[float]:
    """The mean of values [N] over the pictures of each label."""
    return [float(values[labels == k].double().mean()) for k in labels.unique().sort().values]


def real_test(count: int) -> Seen:
    """Real test images as if they had been generated: the floor."""
    known = real.load()
    logits, labels = known.logits[:count], known.labels[:count]
    odd = _ranked(_calibration()[:count], known.outlines_apart[:count], labels)
    return Seen(Set(known.test[:count], logits.argmax(1) == labels, labels, odd), logits)


def real_images() -> tuple[Tensor, Tensor]:
    """The real test images that ship, [500, 1, 28, 28] in [-1, 1], and their labels [500]."""
    with np.load(SAMPLE) as stored:
        return torch.from_numpy(stored["images"])[:, None].float().div(127.5).sub(1), torch.from_numpy(
            stored["labels"]
        ).long()


def noise(count: int, seed: int = 0) -> Seen:
    """Uniform noise as if it had been generated: the ceiling."""
    generator = torch.Generator().manual_seed(seed)
    return see(torch.rand(count, 1, 28, 28, generator=generator) * 2 - 1, torch.arange(count) % 10)


def compare(generated: Tensor, real_images: Tensor, features: Features | None = None) -> dict[str, float]:
    """Distances of two sets of images [N, C, H, W] in the space of `features`, by default the shipped classifier's.

    Any function from images to features [N, D] plugs in; `inception.features(file)` is one for natural images.
    """
    features = channels if features is None else features
    g, r = features(generated), features(real_images)
    least = min(len(g), len(r))
    precision, recall = distances.precision_recall(g[:least], r[:least])
    return {
        "frechet": distances.frechet(distances.statistics(g), distances.statistics(r)),
        "kernel": distances.kernel_distance(g, r),
        "precision": precision,
        "recall": recall,
    }
