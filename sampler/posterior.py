"""The arithmetic of one sampler step, defined once; faster versions imitate this signature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Guided(NamedTuple):
    """The two halves of a guided prediction, not yet combined, so that an update may fuse it.

    conditional, unconditional: [B, C, H, W]; scale: classifier-free guidance scale, 1 = none.
    """

    conditional: Tensor
    unconditional: Tensor
    scale: float


class State(NamedTuple):
    """What a step hands to the next; a part that nothing asks for is None.

    x: [B, C, H, W] float32. before: the x0 estimate of the step that led here, like x; where the trajectory has
    memory. input: x in the network's dtype, once or twice (for batched guidance), [B or 2B, C, H, W]; where the
    update feeds the network in the same pass.
    """

    x: Tensor
    before: Tensor | None = None
    input: Tensor | None = None

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return tuple(part for part in self if part is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> "State":
        """The same parts, each changed."""
        return State(*(None if part is None else change(part) for part in self))  # type: ignore[arg-type]

    def empty_like(self) -> "State":
        """Memory for a successor: each part contiguous."""
        return self.each(lambda part: torch.empty_like(part, memory_format=torch.contiguous_format))


@dataclass(frozen=True)
class Feed:
    """In what form a network reads the state: how many copies of the batch, and in which dtype."""

    copies: int
    dtype: torch.dtype

    def of(self, x: Tensor) -> Tensor:
        """The definition of what an update that feeds the network writes beside the state."""
        return torch.cat([x] * self.copies).to(self.dtype)


def combine(out: Tensor | Guided) -> Tensor:
    """Classifier-free guidance, u + s·(c - u) (Ho & Salimans 2022, Eq. 6, with s = 1 + w).

    Halves in half precision are widened first: the difference of two near numbers is then exact.
    """
    if not isinstance(out, Guided):
        return out
    wide = torch.promote_types(out.unconditional.dtype, torch.float32)
    conditional, unconditional = out.conditional.to(wide), out.unconditional.to(wide)
    return unconditional + out.scale * (conditional - unconditional)


def posterior(x: Tensor, out: Tensor | Guided, z: Tensor, row: Tensor) -> Tensor:
    """x_s = c·x0 + d·x + σ·z with x0 = clamp(a·x - b·out, ±bound).

    x, z: [B, C, H, W] float32 state and noise; out: the network's prediction (any float dtype);
    row: [6] float32, one row (a, b, c, d, σ, bound) of a `Trajectory`. NaN is propagated.
    """
    return posterior_of(State(x), out, z, row).x


def posterior_of(state: State, out: Tensor | Guided, z: Tensor, row: Tensor) -> State:
    """x_s = c·x0 + g·x0_before + d·x + σ·z, of records; the term with g is there where the state has a `before`.

    row: [7] float32 (a, b, c, d, σ, bound, g) there. The new state's `before` is the x0 of this step. What the
    network reads next is not made here.
    """
    (x, before, _), (a, b, c, d, sigma, bound, *g) = state, row.unbind()
    x0 = _estimate(x, out, a, b, bound)
    if before is None:
        return State(c * x0 + d * x + sigma * z)
    return State(c * x0 + g[0] * before + d * x + sigma * z, x0)


def estimate_x0(x: Tensor, out: Tensor | Guided, row: Tensor) -> Tensor:
    """The network's current estimate of the image, clamped: clamp(a·x - b·out, ±bound)."""
    a, b, _, _, _, bound, *_ = row.unbind()
    return _estimate(x, out, a, b, bound)


def _estimate(x: Tensor, out: Tensor | Guided, a: Tensor, b: Tensor, bound: Tensor) -> Tensor:
    return (a * x - b * combine(out).to(x.dtype)).clamp(-bound, bound)
