"""Distances between sets of features: against independent implementations, and on sets whose distance is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.quality import distances, real, trial
from bench.quality.judging import compare
from sampler.errors import UsageError

linalg, spatial = pytest.importorskip("scipy.linalg"), pytest.importorskip("scipy.spatial")


def features(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing * scale + shift


SHIPPED = (trial.shipped("25 steps").set.features, real.load().train)  # those of the figures in the tables
SETS = [
    (features(80, 12, 0), features(60, 12, 1, 0.5)),
    (features(9, 24, 2), features(7, 24, 3, 0, 2.0)),
    (SHIPPED[0][:150], SHIPPED[1][:120]),
]


@pytest.mark.parametrize(("one", "other"), SETS)
def test_frechet_is_scipys(one: Tensor, other: Tensor) -> None:
    a, b = one.numpy(), other.numpy()
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # a root of a singular product is ill-defined in its null space, where its trace is not
    values = linalg.eigvals(c1 @ c2)
    trace = np.sqrt(np.clip(values.real, 0, None)).sum()
    if len(a) > a.shape[1]:
        trace = linalg.sqrtm(c1 @ c2).real.trace()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * trace
    found = distances.frechet(distances.statistics(one), distances.statistics(other))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("one", "other"), SETS)
def test_the_kernel_distance_is_the_sum_over_pairs(one: Tensor, other: Tensor) -> None:
    def mean(a, b, same: bool) -> float:
        k = [
            (float(x @ y) / len(x) + 1) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)
        ]
        return sum(k) / len(k)

    g, r = one.numpy(), other.numpy()
    expected = mean(g, g, True) + mean(r, r, True) - 2 * mean(g, r, False)
    assert distances.kernel_distance(one, other) == pytest.approx(expected, rel=1e-6)


@pytest.mark.extra
def test_torch_fidelity_agrees() -> None:
    pytest.importorskip("torch_fidelity", reason="the extra 'inception' is not installed", exc_type=ImportError)
    from torch_fidelity import metric_fid, metric_kid

    one, other = SETS[0]
    a, b = (metric_fid.fid_features_to_statistics(x) for x in (one, other))
    expected = metric_fid.fid_statistics_to_metric(a, b, False)["frechet_inception_distance"]
    found = distances.frechet(distances.statistics(one), distances.statistics(other))
    assert found == pytest.approx(expected, rel=1e-6)
    m = len(other)
    kernel = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None,
              "kid_kernel_poly_coef0": 1}  # fmt: skip
    kid = metric_kid.kid_features_to_metric(
        one[:m], other, kid_subsets=1, kid_subset_size=m, verbose=False, **kernel
    )  # fmt: skip
    found = distances.kernel_distance(one[:m], other)
    assert found == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-6)


def test_precision_and_recall_are_those_of_nearest_neighbours() -> None:
    one, other = SETS[0][0][:60], SETS[0][1]
    g, r = one.numpy(), other.numpy()

    def covered(points, manifold) -> float:
        reach = spatial.cKDTree(manifold).query(manifold, 4)[0][:, 3]
        return float((spatial.distance.cdist(points, manifold) <= reach).any(1).mean())

    assert distances.precision_recall(one, other) == pytest.approx((covered(g, r), covered(r, g)))


def test_the_score_counts_classes_seen_for_certain() -> None:
    certain = torch.eye(10) * 1000
    assert distances.classifier_score(certain) == pytest.approx(10)
    assert distances.classifier_score(certain[:1].expand(8, 10)) == pytest.approx(1)


def test_diversity_is_the_mean_distance_within_a_label() -> None:
    f, labels = features(20, 5, 4), torch.arange(20) % 3
    expected = np.mean([spatial.distance.pdist(f[labels == k].numpy()).mean() for k in range(3)])
    assert distances.diversity(f, labels) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UsageError, match="no two of the same label"):
        distances.diversity(f[:3], labels[:3])


def test_known_distances() -> None:
    f = SETS[0][0]
    same = distances.statistics(f)
    assert distances.frechet(same, same) == pytest.approx(0, abs=1e-9)
    moved = distances.statistics(f + 2)
    assert distances.frechet(same, moved) == pytest.approx(4 * f.shape[1], rel=1e-9)
    with pytest.raises(UsageError, match="N of at least 2"):
        distances.kernel_distance(f[:1], f)


def test_any_function_of_images_plugs_in() -> None:
    images, real = torch.rand(30, 3, 8, 8), torch.rand(40, 3, 8, 8)
    found = compare(images, real, lambda x: x.flatten(1)[:, :6])
    f, r = images.flatten(1)[:, :6], real.flatten(1)[:, :6]
    assert found["kernel"] == pytest.approx(distances.kernel_distance(f, r))
    assert found["frechet"] == pytest.approx(distances.frechet(distances.statistics(f), distances.statistics(r)))
    assert 0 <= found["precision"] <= 1
