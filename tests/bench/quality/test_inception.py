"""Inception features: what is missing is said in one sentence, and the function takes grey and colour alike."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bench.quality import inception
from bench.quality.judging import compare
from sampler.errors import UsageError


class Extractor(torch.nn.Module):
    """Stands in for torch-fidelity's: takes bytes of three channels, gives a tuple."""

    def __init__(self, name: str, features: list[str], weights: str):
        super().__init__()
        assert (name, features) == ("inception-v3-compat", ["2048"])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 8, 8)
        return (images.flatten(1)[:, :5].float(),)


@pytest.fixture
def fidelity(monkeypatch) -> None:
    parent, module = ModuleType("torch_fidelity"), ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", parent)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_missing_package_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UsageError, match=r"ddpm-bench\[inception\]"):
        inception.features(tmp_path / "weights.pth")


def test_missing_weights_are_named(fidelity, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pt_inception-2015-12-05"):
        inception.features(tmp_path / "weights.pth")


def test_features_plug_into_a_comparison(fidelity, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    features = inception.features(weights)
    grey = torch.tensor([-1.0, 0.0, 1.0, 9.0]).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    assert features(grey)[:, 0].tolist() == [0.0, 128.0, 255.0, 255.0]
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert compare(images[:30], images[30:], features)["frechet"] > 0
    assert compare(images[:30], images[:30], features)["frechet"] == pytest.approx(0, abs=1e-3)
