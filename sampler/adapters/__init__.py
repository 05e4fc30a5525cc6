"""What a factory may return: a `Model`, or an object of another library that has an adapter here."""

import inspect
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sampler.errors import UsageError
from sampler.models import Model

ACCEPTED = (
    "a sampler.Model, a pipeline of diffusers (or what sampler.adapters.of_diffusers makes of a network and a "
    "scheduler), or a GaussianDiffusion of denoising-diffusion-pytorch"
)


def adapted(made: Any, name: str) -> Model:
    """The model in what a factory returned; `name` is given to one that has none of its own."""
    if isinstance(made, Model):
        return _with_label_argument(made)
    libraries = {cls.__module__.split(".")[0] for cls in type(made).__mro__}
    if "diffusers" in libraries:
        from sampler.adapters import of_diffusers

        return of_diffusers.pipeline(made, name)
    if "denoising_diffusion_pytorch" in libraries:
        from sampler.adapters import of_denoising_diffusion

        return of_denoising_diffusion.diffusion(made, name)
    what = "nothing" if made is None else f"{type(made).__module__}.{type(made).__qualname__}"
    raise UsageError(f"--model {name}: its factory returned {what}; accepted is {ACCEPTED}")


class WithoutLabels(nn.Module):
    """A network (x, t), called as every denoiser is: (x, t, None)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.network(x, t)


def _with_label_argument(model: Model) -> Model:
    """A model without labels may have a network of two arguments."""
    if model.classes or not isinstance(model.network, nn.Module):
        return model
    try:
        inspect.signature(model.network.forward).bind(None, None, None)
    except TypeError:
        return replace(model, network=WithoutLabels(model.network))
    return model
