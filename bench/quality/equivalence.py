"""Is a set of pictures as good as the reference's? What it loses, with bounds, held against a budget.

Equivalence, not absence of proof (Schuirmann 1987): a loss passes only where its upper bound is inside the budget.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench.quality import distances
from sampler.errors import UsageError

Z_PASS = 1.6449  # one-sided 95 %: every loss must pass, so none needs a correction
Z_FAIL = 2.1280  # one-sided 95 % shared by three losses (Bonferroni), any of which may fail the row
RESAMPLES = 1000
LEAST = 50  # pictures; of fewer nothing is said
EQUIVALENT, WORSE, UNSURE = "EQUIVALENT", "WORSE", "UNSURE"
LOSSES = ("kernel", "accuracy", "diversity")


@dataclass(frozen=True)
class Budget:
    """How much may be lost: absolute for the kernel distance and the accuracy, a share for diversity.

    reason: why so much; measured: the anchors it was set beside, and where they were measured.
    """

    kernel: float
    accuracy: float
    diversity: float
    reason: str
    measured: str

    def __post_init__(self):
        for name in LOSSES:
            if not getattr(self, name) > 0:
                raise UsageError(f"budget {name} = {getattr(self, name):g}; equivalence needs a positive margin")


@dataclass(frozen=True, eq=False)
class Set:
    """What is known of N pictures: features [N, D], whether the label was recognised [N] bool, labels [N]."""

    features: Tensor
    correct: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Set":
        return Set(self.features[:count], self.correct[:count], self.labels[:count])

    def pick(self, index: Tensor) -> "Set":
        return Set(self.features[index], self.correct[index], self.labels[index])

    @cached_property
    def within(self) -> Tensor:
        """Kernel of its own pairs, [N, N]."""
        return distances.kernel(self.features, self.features)

    @cached_property
    def apart(self) -> Tensor:
        """Distance of its own pairs, [N, N]."""
        f = self.features.double()
        return torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class Loss:
    """What is lost against the reference, positive for worse, and its standard error over N pictures."""

    value: float
    error: float
    pictures: int

    @property
    def upper(self) -> float:
        """The one-sided 95 % upper bound, which must be inside the budget."""
        return self.value + _t(Z_PASS, self.pictures - 1) * self.error

    @property
    def lower(self) -> float:
        """The lower bound, beyond the budget of which the row is worse."""
        return self.value - _t(Z_FAIL, self.pictures - 1) * self.error

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 %, for showing."""
        half = _t(1.9600, self.pictures - 1) * self.error
        return self.value - half, self.value + half


def losses(row: Set, reference: Set, real: Tensor, seed: int = 0) -> dict[str, Loss]:
    """What the row loses: kernel distance to real features [M, D], label accuracy, diversity within a label.

    Picture i of both has the same label and seed: they are resampled together, within each label (paired,
    stratified bootstrap), and the real ones with them.
    """
    again = resampled(row, reference, real, seed)
    n = len(row)
    return {
        "kernel": _loss(again["kernel"], n),
        "accuracy": _accuracy_loss(row.correct, reference.correct),
        "diversity": _loss(again["diversity"], n),
    }


def resampled(row: Set, reference: Set, real: Tensor, seed: int = 0, pictures: int | None = None) -> dict[str, Tensor]:
    """Each loss [1 + RESAMPLES]: first its plain value, then of sets drawn anew; pictures: of so many, in tens."""
    n = len(row)
    if n != len(reference) or not torch.equal(row.labels, reference.labels):
        raise UsageError(f"{n} pictures against {len(reference)}: pairs must have the same labels, one by one")
    if n < LEAST:
        raise UsageError(f"{n} pictures; of fewer than {LEAST} nothing can be said")
    generator = torch.Generator().manual_seed(seed)
    weights = _weights(row.labels, generator, pictures)
    of_real = _weights(torch.zeros(len(real)), generator)
    lost = reference.correct.double() - row.correct.double()
    return {
        "kernel": _to_real(row, real, weights, of_real) - _to_real(reference, real, weights, of_real),
        "accuracy": weights @ lost / weights.sum(1),
        "diversity": 1 - _within(row.apart, row.labels, weights) / _within(reference.apart, row.labels, weights),
    }


def kernel_distance(row: Set, real: Tensor, seed: int = 0) -> Loss:
    """The kernel distance to real features [M, D] itself, unbiased for pictures that are balanced by label.

    With n of each of K labels, two pictures have the same label less often than two drawn at random: without
    weighting the pairs, the distance of a perfect set would come out negative.
    """
    generator = torch.Generator().manual_seed(seed)
    everyone = torch.zeros(len(real))
    weights, of_real = _weights(row.labels, generator), _weights(everyone, generator)
    own = _pairs(distances.kernel(real, real), everyone, of_real)
    return _loss(_to_real(row, real, weights, of_real) + own, len(row))


def verdict(found: dict[str, Loss], budget: Budget) -> tuple[str, str]:
    """EQUIVALENT, WORSE or UNSURE, and the sentence that says by which loss."""
    worst = max(LOSSES, key=lambda name: found[name].lower / getattr(budget, name))
    widest = max(LOSSES, key=lambda name: found[name].upper / getattr(budget, name))
    n = found["kernel"].pictures
    if found[worst].lower > getattr(budget, worst):
        return WORSE, (
            f"{_WORDS[worst]} {found[worst].value:.3g}, at least {found[worst].lower:.3g} with N = {n}, "
            f"exceeds its budget of {getattr(budget, worst):.3g}"
        )
    if found[widest].upper < getattr(budget, widest):
        return EQUIVALENT, f"every loss is inside its budget (95 %, N = {n})"
    return UNSURE, (
        f"{_WORDS[widest]} may be up to {found[widest].upper:.3g} with N = {n}, "
        f"and the budget is {getattr(budget, widest):.3g}"
    )


_WORDS = {
    "kernel": "the loss of kernel distance,",
    "accuracy": "the loss of label accuracy,",
    "diversity": "the loss of diversity,",
}


def _loss(found: Tensor, pictures: int) -> Loss:
    """From the plain value, first, and the resampled ones; a label drawn as one picture only has no pairs (NaN)."""
    again = found[1:][found[1:].isfinite()]
    return Loss(float(found[0]), float(again.std()), pictures)


def _to_real(row: Set, real: Tensor, weights: Tensor, of_real: Tensor) -> Tensor:
    """The kernel distance but for the real pairs' own term, for each set of weights, [1 + R]."""
    across = ((weights @ distances.kernel(row.features, real)) * of_real).sum(1)
    return _pairs(row.within, row.labels, weights) - 2 * across / (weights.sum(1) * of_real.sum(1))


def _pairs(k: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean of k over two pictures whose labels are drawn independently, for each set of weights, [1 + R].

    A picture drawn twice is no pair of its own, or its k(x, x) would bias the mean.
    """
    total = ((weights @ k) * weights).sum(1)
    for label in labels.unique():
        mine = labels == label
        own, w = k[mine][:, mine], weights[:, mine]
        every, same = ((w @ own) * w).sum(1), w.square() @ own.diagonal()
        n2, alone = w.sum(1).square(), w.square().sum(1)
        total += (every - same) * n2 / (n2 - alone) - every
    return total / weights.sum(1).square()


def _within(apart: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean of `apart` over two different pictures of one label, averaged over labels, [1 + R]."""
    means = []
    for label in labels.unique():
        mine = labels == label
        w = weights[:, mine]
        means.append(((w @ apart[mine][:, mine]) * w).sum(1) / (w.sum(1).square() - w.square().sum(1)))
    return torch.stack(means).mean(0)


def _accuracy_loss(row: Tensor, reference: Tensor) -> Loss:
    """Difference of two paired shares, by Agresti & Min (2005): half a picture is added to each cell."""
    n = len(row) + 2
    lost = int((reference & ~row).sum()) + 0.5
    won = int((row & ~reference).sum()) + 0.5
    error = math.sqrt(max(0.0, lost + won - (lost - won) ** 2 / n)) / n
    return Loss((lost - won) / n, error, len(row))


def _weights(labels: Tensor, generator: torch.Generator, pictures: int | None = None) -> Tensor:
    """How often each picture is drawn, [1 + R, N] float64: first each once, then R times as many of each label.

    pictures: so many in all, shared by the labels as these are, instead of N.
    """
    share = 1.0 if pictures is None else pictures / len(labels)
    counts = torch.zeros(RESAMPLES, len(labels), dtype=torch.float64)
    for label in labels.unique():
        mine = torch.nonzero(labels == label)[:, 0]
        drawn = mine[torch.randint(len(mine), (RESAMPLES, round(len(mine) * share)), generator=generator)]
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return torch.cat([torch.ones(1, len(labels), dtype=torch.float64), counts])


def _t(z: float, freedom: int) -> float:
    """Student's quantile from the normal's, to 1 % from 9 degrees on (Cornish-Fisher; Abramowitz & Stegun 26.7.5)."""
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
