"""Verdicts by equivalence: what is shown to be inside a budget, what beyond it, and what cannot be said."""

import numpy as np
import pytest
import torch

from bench.quality import equivalence
from bench.quality.equivalence import (
    EQUIVALENT,
    JUDGED_FROM,
    LOSSES,
    NO_WORSE,
    NOT_JUDGED,
    UNSURE,
    WORSE,
    Budget,
    Loss,
    Set,
    kernel_distance,
    losses,
)
from sampler.errors import UsageError

stats = pytest.importorskip("scipy.stats")

BUDGET = Budget(0.1, 0.1, 0.1, "for a test", "nowhere", strangeness=0.1, strangeness_error=0.0)


def drawn(
    count: int, seed: int, shift: float = 0.0, accuracy: float = 0.9, spread: float = 1.0, strange: float = 0.4
) -> Set:
    """Pictures of ten labels whose features lie around the label's centre."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    centres = torch.randn(10, 16, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    noise = torch.randn(count, 16, generator=generator, dtype=torch.float64) * spread
    correct = torch.rand(count, generator=generator) < accuracy
    odd = -torch.rand(count, generator=generator, dtype=torch.float64).log() * strange
    return Set(centres[labels] + noise + shift, correct, labels, odd)


REAL = drawn(500, 7).features


def found(**values: tuple[float, float]) -> dict[str, Loss]:
    return {name: Loss(*values.get(name, (0.0, 0.01)), 200) for name in LOSSES}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, EQUIVALENT),
        ({"kernel": (0.05, 0.01)}, EQUIVALENT),
        ({"kernel": (0.09, 0.01)}, UNSURE),
        ({"accuracy": (0.0, 0.08)}, UNSURE),
        ({"diversity": (0.2, 0.08)}, UNSURE),
        ({"kernel": (0.2, 0.01)}, WORSE),
        ({"accuracy": (0.2, 0.01), "kernel": (0.0, 0.5)}, WORSE),
        ({"strangeness": (0.2, 0.01)}, WORSE),
        ({"strangeness": (0.09, 0.02)}, UNSURE),
        ({"diversity": (-0.5, 0.01)}, NO_WORSE),
        ({"kernel": (-0.09, 0.02)}, NO_WORSE),
        ({"kernel": (-0.5, 0.01), "strangeness": (0.2, 0.01)}, WORSE),
        ({"kernel": (float("nan"), 0.01)}, UNSURE),
        ({"kernel": (0.0, float("nan"))}, UNSURE),
    ],
)
def test_a_verdict_takes_every_loss_to_pass_and_one_to_fail(values: dict, expected: str) -> None:
    verdict, why = equivalence.verdict(found(**values), BUDGET)
    assert verdict == expected
    assert "N = 200" in why


def test_what_is_better_than_the_reference_is_never_a_gain_alone() -> None:
    """A set that is shown to differ is called no worse, and the sentence says in what it differs."""
    _, why = equivalence.verdict(found(diversity=(-0.5, 0.01)), BUDGET)
    assert "different" in why
    assert "diverse" in why
    assert "different" not in equivalence.verdict(found(), BUDGET)[1]


def test_a_margin_that_was_measured_carries_its_own_error() -> None:
    lost = found(kernel=(0.07, 0.01))
    sure, measured = BUDGET, Budget(0.1, 0.1, 0.1, "", "", strangeness=0.1, strangeness_error=0.0, kernel_error=0.03)
    assert equivalence.verdict(lost, sure)[0] == EQUIVALENT
    assert equivalence.verdict(lost, measured)[0] == UNSURE
    beyond = found(kernel=(0.13, 0.01))
    assert equivalence.verdict(beyond, sure)[0] == WORSE
    assert equivalence.verdict(beyond, measured)[0] == UNSURE


def test_of_few_pictures_nothing_is_said_but_how_many_are_missing() -> None:
    lost = {name: Loss(0.0, 0.001, JUDGED_FROM - 140) for name in LOSSES}
    verdict, why = equivalence.verdict(lost, BUDGET, picture_s=0.5)
    assert verdict == NOT_JUDGED
    assert "140 more" in why
    assert "70 s" in why


def test_a_result_without_strangeness_may_fail_and_cannot_pass() -> None:
    old = {name: loss for name, loss in found().items() if name != "strangeness"}
    assert equivalence.verdict(old, BUDGET)[0] == NOT_JUDGED
    old["kernel"] = Loss(0.5, 0.01, 200)
    assert equivalence.verdict(old, BUDGET)[0] == WORSE


def test_not_knowing_is_not_passing() -> None:
    """No difference at all, and too few pictures to say so."""
    few = drawn(JUDGED_FROM, 1)
    verdict, _ = equivalence.verdict(losses(few, few, REAL), Budget(1e-6, 1e-3, 1e-6, "", ""))
    assert verdict == UNSURE


def test_a_set_against_itself_loses_nothing() -> None:
    those = drawn(100, 1)
    lost = losses(those, those, REAL)
    assert lost["kernel"].value == pytest.approx(0, abs=1e-12)
    assert lost["kernel"].error == pytest.approx(0, abs=1e-12)
    assert lost["diversity"].value == pytest.approx(0, abs=1e-12)
    assert lost["accuracy"].value == 0


def test_what_is_lost_is_seen_in_the_loss_that_it_concerns() -> None:
    reference = drawn(200, 1)
    moved, unrecognised, narrow = drawn(200, 2, shift=0.6), drawn(200, 2, accuracy=0.5), drawn(200, 2, spread=0.5)
    odd = drawn(200, 2, strange=0.8)
    for row, name in ((moved, "kernel"), (unrecognised, "accuracy"), (narrow, "diversity"), (odd, "strangeness")):
        lost = losses(row, reference, REAL)
        assert lost[name].lower > 0
    same = losses(drawn(200, 3), reference, REAL)
    for loss in same.values():
        low, high = loss.interval
        assert low < 0 < high


def test_the_kernel_distance_of_a_balanced_set_is_unbiased() -> None:
    """Pictures balanced by label have fewer pairs of one label than at random; the distance must not see it."""
    values = [kernel_distance(drawn(50, seed), REAL).value for seed in range(15)]
    mean = sum(values) / len(values)
    assert abs(mean) < 3 * torch.tensor(values).std().item() / len(values) ** 0.5 + 0.02


@pytest.mark.parametrize("freedom", [9, 49, 199])
@pytest.mark.parametrize("z", [equivalence.Z_PASS, equivalence.Z_FAIL, 1.96])
def test_students_quantile(z: float, freedom: int) -> None:
    assert equivalence._t(z, freedom) == pytest.approx(stats.t.ppf(stats.norm.cdf(z), freedom), rel=0.01)


def test_bounds_cover_what_they_should() -> None:
    """Of sets that lose nothing, about 95 % have an upper bound above 0."""
    above = 0
    for seed in range(25):
        lost = losses(drawn(50, 2 * seed), drawn(50, 2 * seed + 1), REAL)
        above += lost["kernel"].upper > 0
    assert stats.binomtest(above, 25, 0.95).pvalue > 0.001


def test_resampling_foresees_what_other_pictures_would_show() -> None:
    """The errors of sets drawn anew from one set, of other sizes too, are those of sets that are really drawn."""
    fresh = [losses(drawn(60, 2 * s, shift=0.2), drawn(60, 2 * s + 1), REAL) for s in range(24)]
    foreseen = equivalence.resampled(drawn(200, 101, shift=0.2), drawn(200, 102), REAL, pictures=60)
    for name in LOSSES:
        spread = torch.tensor([lost[name].value for lost in fresh]).std()
        assert 0.65 < float(foreseen[name][1:].std() / spread) < 1.5
        middle = float(foreseen[name][1:].mean() - foreseen[name][0])
        assert abs(middle) < 0.3 * float(foreseen[name][1:].std())


def test_the_kernel_distance_is_the_mean_over_pairs_of_labels() -> None:
    """Independently in plain NumPy: every pair of labels weighs the same, and no picture meets itself."""
    those, real = drawn(60, 5), drawn(80, 6).features
    x, r, labels = those.features.numpy(), real.numpy(), those.labels.numpy()

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (np.einsum("id,jd->ij", a, b) / a.shape[1] + 1) ** 3

    own = []
    for one in range(10):
        for other in range(10):
            pairs = [k(x[[i]], x[[j]])[0, 0] for i in np.flatnonzero(labels == one)
                     for j in np.flatnonzero(labels == other) if i != j]  # fmt: skip
            own.append(np.mean(pairs))
    among_real = (k(r, r).sum() - np.trace(k(r, r))) / (len(r) * (len(r) - 1))
    expected = np.mean(own) + among_real - 2 * k(x, r).mean()
    assert kernel_distance(those, real).value == pytest.approx(expected, rel=1e-9)
    other = drawn(60, 9)
    lost = losses(those, other, real)["kernel"].value
    assert lost == pytest.approx(expected - kernel_distance(other, real).value, rel=1e-9)


def test_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing can be said"):
        losses(drawn(40, 1), drawn(40, 2), REAL)
    with pytest.raises(UsageError, match="same labels"):
        losses(drawn(60, 1), drawn(50, 2), REAL)
    with pytest.raises(UsageError, match="positive margin"):
        Budget(0.0, 0.1, 0.1, "", "")
