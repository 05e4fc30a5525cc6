"""Is a set of pictures as good as the reference's? What it loses, with bounds, held against a budget.

Equivalence, not absence of proof, and on both sides (Schuirmann 1987): a set that is shown to be neither worse nor
better than its budget allows is EQUIVALENT, one that is only shown to be no worse is called that.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench.quality import distances
from sampler.errors import UsageError

Z_PASS = 1.6449  # one-sided 95 %: every loss must pass, so none needs a correction
Z_FAIL = 2.2414  # one-sided 95 % shared by four losses (Bonferroni), any of which may fail the row
RESAMPLES = 1000
LEAST = 50  # pictures; of fewer nothing is computed
JUDGED_FROM = 200  # pictures; of fewer no verdict is given
EQUIVALENT, NO_WORSE, WORSE, UNSURE, NOT_JUDGED = "EQUIVALENT", "NO WORSE", "WORSE", "UNSURE", "NOT JUDGED"
PASSES = (EQUIVALENT, NO_WORSE)  # inside the budget
OPEN = (UNSURE, NOT_JUDGED)  # neither shown to be inside nor outside
LOSSES = ("kernel", "accuracy", "diversity", "strangeness")
# What drawing without guidance adds to the strangeness of pictures (DDIM, 50 steps), and its standard error; a test
# computes it from what ships. Rows of few steps may lose a quarter of it, about what one broken picture in ten costs.
UNGUIDED_STRANGER, UNGUIDED_STRANGER_ERROR = 0.348, 0.0224
STRANGENESS, STRANGENESS_ERROR = UNGUIDED_STRANGER / 4, UNGUIDED_STRANGER_ERROR / 4


@dataclass(frozen=True)
class Budget:
    """How much may be lost: absolute for kernel distance, accuracy and strangeness, a share for diversity.

    reason: why so much; measured: the anchors it was set beside, and where they were measured. The errors are standard
    errors of margins that were measured themselves; 0 for a margin that was chosen.
    """

    kernel: float
    accuracy: float
    diversity: float
    reason: str
    measured: str
    strangeness: float = STRANGENESS
    kernel_error: float = 0.0
    accuracy_error: float = 0.0
    diversity_error: float = 0.0
    strangeness_error: float = STRANGENESS_ERROR

    def __post_init__(self):
        for name in LOSSES:
            if not getattr(self, name) > 0:
                raise UsageError(f"budget {name} = {getattr(self, name):g}; equivalence needs a positive margin")
            if not getattr(self, f"{name}_error") >= 0:
                raise UsageError(
                    f"the error of budget {name} is {getattr(self, f'{name}_error'):g}; it can't be negative"
                )

    def margin(self, name: str) -> tuple[float, float]:
        """What may be lost of one loss, and the standard error of that."""
        return getattr(self, name), getattr(self, f"{name}_error")


@dataclass(frozen=True, eq=False)
class Set:
    """What is known of N pictures: features [N, D], whether the label was recognised [N] bool, labels [N], and how
    strange each is [N] (see `strangeness`)."""

    features: Tensor
    correct: Tensor
    labels: Tensor
    strange: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Set":
        return Set(self.features[:count], self.correct[:count], self.labels[:count], self.strange[:count])

    def joined(self, other: "Set") -> "Set":
        """These pictures, then the others."""
        pairs = ((self.features, other.features), (self.correct, other.correct), (self.labels, other.labels),
                 (self.strange, other.strange))  # fmt: skip
        return Set(*(torch.cat(pair) for pair in pairs))

    def pick(self, index: Tensor) -> "Set":
        return Set(self.features[index], self.correct[index], self.labels[index], self.strange[index])

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
        """The one-sided 95 % upper bound."""
        return self.value + _t(Z_PASS, self.pictures - 1) * self.error

    @property
    def lower(self) -> float:
        """The lower bound, with its share of the 5 % that all losses have together."""
        return self.value - _t(Z_FAIL, self.pictures - 1) * self.error

    def excess(self, margin: float, margin_error: float, z: float) -> float:
        """The bound at normal quantile z, upper where it is positive, of what is lost beyond a margin.

        The margin's own error counts as independent of the loss's.
        """
        return (
            self.value - margin + math.copysign(_t(abs(z), self.pictures - 1), z) * math.hypot(self.error, margin_error)
        )

    @property
    def gain(self) -> "Loss":
        """The same with its sign turned."""
        return Loss(-self.value, self.error, self.pictures)

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 %, for showing."""
        half = _t(1.9600, self.pictures - 1) * self.error
        return self.value - half, self.value + half


def losses(row: Set, reference: Set, real: Tensor, seed: int = 0) -> dict[str, Loss]:
    """What the row loses: kernel distance to real features [M, D], label accuracy, diversity within a label, and by how
    much stranger its pictures are.

    Picture i of both has the same label and seed: they are resampled together, within each label (paired,
    stratified bootstrap), and the real ones with them; of strangeness, the mean of the pairs' differences.
    """
    again = resampled(row, reference, real, seed)
    n = len(row)
    return {
        "kernel": _loss(again["kernel"], n),
        "accuracy": _accuracy_loss(row.correct, reference.correct),
        "diversity": _loss(again["diversity"], n),
        "strangeness": _strangeness_loss(row, reference),
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
        "strangeness": weights @ (row.strange - reference.strange) / weights.sum(1),
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


def verdict(found: dict[str, Loss], budget: Budget, picture_s: float | None = None) -> tuple[str, str]:
    """EQUIVALENT, NO WORSE, WORSE, UNSURE or NOT JUDGED, and the sentence that says by which loss.

    picture_s: seconds that drawing one more picture takes, to say how long what is missing would.
    """
    known = [name for name in LOSSES if name in found]
    n = found[known[0]].pictures
    if n < JUDGED_FROM:
        took = "" if picture_s is None else f", about {_duration((JUDGED_FROM - n) * picture_s)} of drawing"
        return NOT_JUDGED, f"of {n} pictures no verdict is given; {JUDGED_FROM - n} more are needed{took}"
    beyond = {name: found[name].excess(*budget.margin(name), -Z_FAIL) for name in known}
    if worse := [name for name in known if beyond[name] > 0]:
        worst = max(worse, key=lambda name: beyond[name] / budget.margin(name)[0])
        return WORSE, (
            f"{_WORDS[worst]} {found[worst].value:.3g} [{_bounds(found[worst])}], is beyond its budget of "
            f"{_margin(budget, worst)} (N = {n})"
        )
    if missing := [name for name in LOSSES if name not in found]:
        return NOT_JUDGED, f"{' and '.join(missing)} was not measured; judge again: python -m bench quality"
    above = {name: found[name].excess(*budget.margin(name), Z_PASS) for name in LOSSES}
    below = {name: found[name].gain.excess(*budget.margin(name), Z_PASS) for name in LOSSES}
    if not all(bound < 0 for bound in above.values()):
        widest = max(LOSSES, key=lambda name: _or_largest(above[name] / budget.margin(name)[0]))
        return UNSURE, (
            f"{_WORDS[widest]} may be up to {found[widest].upper:.3g} with N = {n}, "
            f"and the budget is {_margin(budget, widest)}"
        )
    if all(bound < 0 for bound in below.values()):
        return EQUIVALENT, f"every difference is inside its budget, on both sides (95 %, N = {n})"
    return NO_WORSE, f"every loss is inside its budget (95 %, N = {n}){different(found, budget)}"


def different(found: dict[str, Loss], budget: Budget) -> str:
    """How a set that is no worse is shown to differ from the reference's all the same: '; but ...', or ''."""
    parts = [_OTHERWISE[name].format(f"{abs(found[name].value):.3g}") for name in LOSSES
             if name in found and found[name].gain.excess(*budget.margin(name), -Z_FAIL) > 0]  # fmt: skip
    return f"; but different: {', '.join(parts)}" if parts else ""


def _or_largest(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _bounds(loss: Loss) -> str:
    return ", ".join(f"{bound:.3g}" for bound in loss.interval)


def _margin(budget: Budget, name: str) -> str:
    margin, error = budget.margin(name)
    return f"{margin:.3g}" + (f" ± {error:.2g}" if error else "")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


_WORDS = {
    "kernel": "the loss of kernel distance,",
    "accuracy": "the loss of label accuracy,",
    "diversity": "the loss of diversity,",
    "strangeness": "how much stranger its pictures are,",
}
_OTHERWISE = {
    "kernel": "its kernel distance to real pictures is {} smaller",
    "accuracy": "{} more of its labels are recognised",
    "diversity": "it is {} more diverse",
    "strangeness": "its pictures are {} less strange",
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


def _strangeness_loss(row: Set, reference: Set) -> Loss:
    """Mean difference of the pairs, with Student's standard error."""
    lost = row.strange - reference.strange
    return Loss(float(lost.mean()), float(lost.std() / math.sqrt(len(lost))), len(lost))


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
