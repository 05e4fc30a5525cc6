"""The arithmetic of one sampler step, defined once; faster versions imitate this signature."""

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


class Fed(NamedTuple):
    """A state and, made in the same pass, what the network reads of it next.

    state: [B, C, H, W] float32; input: the state in the network's dtype, once or twice (for batched
    guidance): [B or 2B, C, H, W].
    """

    state: Tensor
    input: Tensor


State = Tensor | Fed


@dataclass(frozen=True)
class Feed:
    """In what form a network reads the state: how many copies of the batch, and in which dtype."""

    copies: int
    dtype: torch.dtype

    def of(self, state: Tensor) -> Fed:
        """The definition of what an update that feeds the network writes beside the state."""
        return Fed(state, torch.cat([state] * self.copies).to(self.dtype))


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
    _, _, c, d, sigma, _ = row.unbind()
    return c * estimate_x0(x, out, row) + d * x + sigma * z


def estimate_x0(x: Tensor, out: Tensor | Guided, row: Tensor) -> Tensor:
    """The network's current estimate of the image, clamped: clamp(a·x - b·out, ±bound)."""
    a, b, _, _, _, bound = row.unbind()
    return (a * x - b * combine(out).to(x.dtype)).clamp(-bound, bound)
