"""What the kernels take from the seams around them: a guided pair, a noise key, a state with its next input."""

from typing import Protocol, Self

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


class FedLike(Protocol):
    """A state [B, ...] float32 and what the network reads of it, such as `sampler.posterior.Fed`."""

    @property
    def state(self) -> Tensor: ...

    @property
    def input(self) -> Tensor: ...

    def _replace(self, *, state: Tensor, input: Tensor) -> Self: ...


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
