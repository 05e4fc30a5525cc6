"""denoising-diffusion-pytorch's `GaussianDiffusion` around its `Unet`, unconditional or with classes."""

import copy
import math
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
    if not isinstance(network, nn.Module) or objective not in OBJECTIVES or not hasattr(made, "betas"):
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
    network = in_any_float_type(network)
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


class TimeEmbedding(nn.Module):
    """A `Unet`'s time_mlp in the float type of its layers, which it shares: [B] timesteps -> [B, 4 dim].

    The library's sinusoids (Vaswani et al. 2017, 3.5) are float32 whatever the layers are, which no layer of another
    type takes. These are computed in the layers' type and never in less than float32, and rounded to it at last: in
    bfloat16 timestep 999 would be 1000.
    """

    def __init__(self, theirs: nn.Sequential):
        super().__init__()
        sinusoids, *layers = theirs
        self.layers = nn.Sequential(*layers)
        self.pairs = int(sinusoids.dim) // 2  # type: ignore[arg-type]
        self.theta = float(getattr(sinusoids, "theta", 10_000))

    def forward(self, t: Tensor) -> Tensor:
        dtype: torch.dtype = self.layers[0].weight.dtype  # type: ignore[assignment]
        return self.layers(self.sinusoids(t, torch.promote_types(dtype, torch.float32)).to(dtype))

    def sinusoids(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        powers = torch.arange(self.pairs, device=t.device, dtype=dtype)
        frequencies = torch.exp(powers * -(math.log(self.theta) / (self.pairs - 1)))
        angles = t.to(dtype)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def in_any_float_type(network: nn.Module) -> nn.Module:
    """A `Unet` that shares all that this one holds but its time embedding, which goes along with a cast.

    The very same one where its time embedding is not the library's: where the bits of its sinusoids are others.
    """
    time_mlp = network._modules.get("time_mlp")
    if not isinstance(time_mlp, nn.Sequential):
        return network
    first, second = (*time_mlp, None, None)[:2]
    if type(first).__name__ != "SinusoidalPosEmb" or not isinstance(second, nn.Linear):
        return network
    ours, t = TimeEmbedding(time_mlp), torch.arange(1000, device=next(time_mlp.parameters()).device)
    if not torch.equal(ours.sinusoids(t, torch.float32), time_mlp[0](t)):
        return network
    twin = copy.copy(network)
    twin._modules = {**network._modules, "time_mlp": ours}
    return twin
