"""What the kernels take as a network's output: a tensor, or a guided pair that they combine in registers."""

from typing import Protocol

from torch import Tensor


class GuidedLike(Protocol):
    """Two halves of a guided prediction, such as `sampler.posterior.Guided`.

    conditional, unconditional: [B, ...]; scale: classifier-free guidance scale, 1 = none.
    """

    @property
    def conditional(self) -> Tensor: ...

    @property
    def unconditional(self) -> Tensor: ...

    @property
    def scale(self) -> float: ...


def halves(out: Tensor | GuidedLike, x: Tensor) -> tuple[Tensor, Tensor | None, float]:
    """(conditional, unconditional, scale); unconditional is None for a prediction without guidance."""
    if isinstance(out, Tensor):
        same_shape("out", out, x)
        return out, None, 1.0
    same_shape("out.conditional", out.conditional, x)
    same_shape("out.unconditional", out.unconditional, x)
    return out.conditional, out.unconditional, float(out.scale)


def same_shape(name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.shape != x.shape:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}, but x has {list(x.shape)}")
    if tensor.device != x.device:
        raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}")
