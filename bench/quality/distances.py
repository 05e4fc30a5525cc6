"""Distances between sets of features: how far one set of pictures is from another, and what of it is missing.

All take features [N, D] of any float dtype and compute in float64. None knows where its features come from.
"""

import torch
from torch import Tensor

from sampler.errors import UsageError


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D, D]."""
    features = _checked(features, 2)
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def frechet(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Squared Fréchet distance of two normals, given as (mean, covariance) (Dowson & Landau 1982, Eq. 4).

    As an estimate from N samples it is biased upwards by an amount that falls with N (Chong & Forsyth 2020):
    compare only figures of equal N.
    """
    (mean1, cov1), (mean2, cov2) = one, other
    # tr √(C1·C2) = tr √(√C1·C2·√C1), symmetric and positive: eigenvalues are real, and exact for low rank too
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ cov2 @ root
    trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * trace)


def kernel(one: Tensor, other: Tensor) -> Tensor:
    """(x·y / D + 1)³ for all pairs, [N, M] (Bińkowski et al. 2018, "Demystifying MMD GANs", section 4)."""
    one, other = _checked(one, 1), _checked(other, 1)
    return (one @ other.T / one.shape[1] + 1) ** 3


def kernel_distance(generated: Tensor, real: Tensor) -> float:
    """Unbiased squared MMD with that kernel (Gretton et al. 2012, Eq. 3), KID's distance; may be negative."""
    g, r = _checked(generated, 2), _checked(real, 2)
    return float(_mean_of_pairs(kernel(g, g)) + _mean_of_pairs(kernel(r, r)) - 2 * kernel(g, r).mean())


def _mean_of_pairs(k: Tensor) -> Tensor:
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def precision_recall(generated: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, Eq. 1-3).

    Precision: the share of generated pictures within the real ones' manifold, the union of balls that reach to
    each one's k-th nearest neighbour; recall: the share of real ones within the generated ones'. Equal N only.
    """
    g, r = _checked(generated, neighbours + 1), _checked(real, neighbours + 1)
    apart = torch.cdist(g, r, compute_mode="donot_use_mm_for_euclid_dist")  # [N, M]
    return (
        float((apart <= _reach(r, neighbours)[None, :]).any(1).double().mean()),
        float((apart <= _reach(g, neighbours)[:, None]).any(0).double().mean()),
    )


def _reach(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each to its k-th nearest neighbour, itself not counted, [N]."""
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.kthvalue(neighbours + 1, dim=1).values


def classifier_score(logits: Tensor) -> float:
    """exp of the mean KL divergence of p(label | picture) from p(label), 1 to the number of classes.

    The Inception Score (Salimans et al. 2016, section 4) with the logits [N, K] of another classifier.
    """
    log_p = _checked(logits, 1).log_softmax(1)
    p = log_p.exp()
    # a label of no weight at all adds nothing, not NaN
    divergence = torch.where(p > 0, p * (log_p - p.mean(0).log()), 0.0)
    return float(divergence.sum(1).mean().exp())


def diversity(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two different pictures of the same label, averaged over the labels that have two."""
    features = _checked(features, 2)
    means = []
    for label in labels.unique():
        mine = features[labels == label]
        if len(mine) > 1:
            means.append(torch.nn.functional.pdist(mine).mean())
    if not means:
        raise UsageError(f"{len(features)} pictures, and no two of the same label: diversity needs two")
    return float(torch.stack(means).mean())


def _checked(features: Tensor, least: int) -> Tensor:
    if features.ndim != 2 or len(features) < least:
        raise UsageError(f"features of shape {list(features.shape)}; [N, D] with N of at least {least} is needed")
    return features.double()
