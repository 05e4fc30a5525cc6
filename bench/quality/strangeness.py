"""How strange each picture is: further from the real pictures of its label than what share of other real pictures.

A distance between distributions misses a minority of ruined pictures, and may even fall because of them. Here each
picture is judged by itself. Its distance to the nearest real training picture of its label is ranked among those of
real test pictures of that label, which gives a conformal p-value (Vovk, Gammerman & Shafer 2005; for outliers, Bates et
al. 2023). Its strangeness is -log10 p: 0.43 on the average for real pictures, 1 where it is further than nine tenths of
them. Copies of training pictures would look least strange of all: what is rewarded is resemblance, not novelty.

It is the mean of two spaces: the classifier's features, and the outlines of `outlines`, in which torn edges stand out.
"""

import torch
from torch import Tensor, nn

from sampler.errors import UsageError


def nearest(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> Tensor:
    """Euclidean distance of each picture [N, D] to the nearest real one [M, D] of its label, [N] float64.

    features, real: in one space, of any float type; labels [N] and real_labels [M]: whole numbers. Refuses a label of
    which there is no real picture.
    """
    found = torch.empty(len(features), dtype=torch.float64)
    for label in labels.unique():
        mine, theirs = labels == label, real_labels == label
        if not bool(theirs.any()):
            raise UsageError(f"there is no real picture of label {int(label)} to compare with")
        apart = torch.cdist(features[mine].double(), real[theirs].double(),
                            compute_mode="donot_use_mm_for_euclid_dist")  # fmt: skip
        found[mine] = apart.min(1).values
    return found


def strangeness(distances: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor) -> Tensor:
    """-log10 of each picture's conformal p-value, [N] float64, at most log10(1 + real pictures of the label).

    distances [N]: of the pictures, by `nearest`; known [K]: of real pictures that are not among those they are compared
    with. p = (1 + how many of them are at least as far) / (1 + their number), within the label.
    """
    found = torch.empty(len(distances), dtype=torch.float64)
    for label in labels.unique():
        mine, theirs = labels == label, known_labels == label
        calibration = known[theirs].sort().values
        further = len(calibration) - torch.searchsorted(calibration, distances[mine].contiguous())
        found[mine] = -torch.log10((1 + further.double()) / (1 + len(calibration)))
    return found


CELL, ORIENTATIONS, BLOCK = 4, 9, 2  # pixels; of half a turn; cells
STILL = 1e-2  # of a block's norm, so that faint noise on an even ground is no outline


def outlines(images: Tensor) -> Tensor:
    """Histograms of oriented gradients of pictures [N, 1, H, W] in [-1, 1]: [N, D] float32 (Dalal & Triggs 2005).

    Cells of 4×4 pixels, nine orientations of half a turn, each gradient shared by the two next to it; blocks of 2×2
    cells, one cell apart, of norm 1. 28×28 pixels give D = 1,296.
    """
    grey = (images[:, 0].float() + 1) / 2
    across, down = torch.zeros_like(grey), torch.zeros_like(grey)
    across[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    strength = torch.hypot(across, down)
    turn = (torch.atan2(down, across) % torch.pi) / torch.pi * ORIENTATIONS
    below = turn.floor()
    upper = turn - below
    shares = torch.zeros(len(grey), ORIENTATIONS, *grey.shape[1:])
    first = below.long() % ORIENTATIONS
    shares.scatter_add_(1, first[:, None], (strength * (1 - upper))[:, None])
    shares.scatter_add_(1, (first + 1)[:, None] % ORIENTATIONS, (strength * upper)[:, None])
    blocks = nn.functional.unfold(nn.functional.avg_pool2d(shares, CELL), BLOCK)
    return (blocks / (blocks.norm(dim=1, keepdim=True) + STILL)).flatten(1)
