"""Features of natural images: torch-fidelity's Inception, the network of published FIDs, its weights from a local file.

torch-fidelity is an extra (`pip install 'ddpm-bench[inception]'`); nothing is downloaded.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sampler.errors import UsageError

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
BATCH = 50


def features(weights: Path, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """A function from images [N, 1 or 3, H, W] in [-1, 1] to features [N, 2048], for `judging.compare`."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UsageError("Inception features need torch-fidelity: pip install 'ddpm-bench[inception]'") from None
    weights = Path(weights)
    if not weights.is_file():
        raise UsageError(
            f"no Inception weights at {weights}; name a local copy of {WEIGHTS}, from the releases of torch-fidelity"
        )
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights)).to(device).eval()

    @torch.inference_mode()
    def extract(images: Tensor) -> Tensor:
        found = []
        for batch in images.split(BATCH):
            grey = ((batch.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            (features,) = network(grey.expand(-1, 3, -1, -1).to(device))
            found.append(features.float().cpu())
        return torch.cat(found)

    return extract
