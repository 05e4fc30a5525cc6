"""denoising-diffusion-pytorch's `GaussianDiffusion` around its `Unet`, unconditional or with classes."""

from typing import Any

import torch
from torch import Tensor, nn

from sampler.errors import UsageError
from sampler.models import Model
from sampler.schedule import from_betas

OBJECTIVES = {"pred_noise": "epsilon", "pred_x0": "x0", "pred_v": "v"}


def diffusion(made: Any, name: str = "denoising-diffusion-pytorch") -> Model:
    """The model in a `GaussianDiffusion`; its sampling clips x0 to ±1, and so does this."""
    network, objective = getattr(made, "model", None), getattr(made, "objective", None)
    if network is None or objective not in OBJECTIVES or not hasattr(made, "betas"):
        raise UsageError(
            f"--model {name}: its factory returned a {type(made).__name__} of denoising-diffusion-pytorch; there is an "
            "adapter for GaussianDiffusion, around a Unet"
        )
    if getattr(made, "self_condition", False):
        raise UsageError(
            f"--model {name}: its Unet is conditioned on its own last estimate (self_condition), which a sampler of "
            "independent steps does not hand on"
        )
    size = made.image_size
    height, width = (size, size) if isinstance(size, int) else size
    table = getattr(network, "classes_emb", None)
    classes = 0 if table is None else int(table.num_embeddings)
    return Model(
        name, OnClasses(network, classes) if classes else Unlabelled(network), (made.channels, height, width),
        from_betas(made.betas), OBJECTIVES[objective], classes, classes, trained=True,
        about="Unet of denoising-diffusion-pytorch",
    )  # fmt: skip


class Unlabelled(nn.Module):
    """A `Unet` as a denoiser (x, t, None); of one that also predicts its variance, the first half."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.network(x, t)[:, : x.shape[1]]


class OnClasses(nn.Module):
    """A `Unet` with classes as a denoiser (x, t, label); the label after the last is none."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        known = condition < self.classes
        labels = torch.where(known, condition, 0)
        return self.network(x, t, labels, cond_drop_prob=0.0, cond_keep_mask=known)[:, : x.shape[1]]
