"""What the kernels take from the seams around them: a guided pair, a noise key, the memory of the step before."""

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


class KeyLike(Protocol):
    """What a kernel draws a step's noise from, such as `sampler.noise.NoiseKey`: sample_ids are [B] int64."""

    @property
    def seed(self) -> int | Tensor: ...

    @property
    def sample_ids(self) -> Tensor: ...

    @property
    def step(self) -> int | Tensor: ...


def halves(out: Tensor | GuidedLike, x: Tensor) -> tuple[Tensor, Tensor | None, float]:
    """(conditional, unconditional, scale); unconditional is None for a prediction without guidance."""
    if isinstance(out, Tensor):
        same_shape("out", out, x)
        return out, None, 1.0
    same_shape("out.conditional", out.conditional, x)
    same_shape("out.unconditional", out.unconditional, x)
    return out.conditional, out.unconditional, float(out.scale)


def remembered(before: Tensor | None, x0: Tensor | None, x: Tensor) -> bool:
    """Whether an update has memory: what it reads of the step before, and where its own estimate goes, or neither."""
    if (before is None) != (x0 is None):
        raise ValueError("before and x0 belong together: what is read of the step before, and where this step's goes")
    for name, tensor in (("before", before), ("x0", x0)):
        if tensor is not None:
            same_shape(name, tensor, x)
    return x0 is not None


def same_shape(name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.shape != x.shape:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}, but x has {list(x.shape)}")
    if tensor.device != x.device:
        raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}")
