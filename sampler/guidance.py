"""Classifier-free guidance (Ho & Salimans 2022): how a network and a condition become a prediction.

A guide turns (network, condition, scale) into `predict(x, t)`, with t a tensor of one timestep,
shared by the batch. At scale 1 the unconditional half has no weight and the network is called once.
The network reads the state, or what an update has already made of it for the network (`State.input`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler.errors import UsageError
from sampler.posterior import Guided, State

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Guide = Callable[[Denoiser, "Condition | None", float], "Predict"]


@dataclass(frozen=True, eq=False)
class Condition:
    """What the samples are conditioned on, and what stands for 'nothing'.

    value, null: tensors of the same shape [B, ...] and dtype: labels [B] int64, or an embedding.
    """

    value: Tensor
    null: Tensor

    def __post_init__(self):
        if self.value.shape != self.null.shape or self.value.dtype != self.null.dtype:
            raise UsageError(
                f"the null condition must match the condition: {list(self.value.shape)} {self.value.dtype} "
                f"against {list(self.null.shape)} {self.null.dtype}"
            )

    @classmethod
    def labels(cls, labels: Tensor, null_label: int) -> "Condition":
        """Class labels [B] int64 with their null label."""
        return cls(labels, torch.full_like(labels, null_label))

    def select(self, start: int, stop: int) -> "Condition":
        return Condition(self.value[start:stop], self.null[start:stop])

    def to(self, device: torch.device | str) -> "Condition":
        return Condition(self.value.to(device), self.null.to(device))


@dataclass(frozen=True, eq=False)
class Predict:
    """A guided network: `of_input` reads `copies` copies of the batch [copies·B, C, H, W], and t [1].

    rebind(condition) puts another condition of the same shape in the place of the one it was made for, in the same
    memory, so that what was compiled or captured need not be made anew.
    """

    of_input: Callable[[Tensor, Tensor], Tensor | Guided]
    copies: int = 1
    rebind: Callable[["Condition"], None] = lambda condition: None

    def __call__(self, state: State, t: Tensor) -> Tensor | Guided:
        x, _, made = state
        if made is not None:
            return self.of_input(made[: self.copies * len(x)], t)
        return self.of_input(x if self.copies == 1 else torch.cat([x] * self.copies), t)


def unguided(network: Denoiser, condition: Condition | None, scale: float) -> Predict:
    """One call with the condition (or without any, where there is none)."""
    value = None if condition is None else condition.value.clone()

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t.expand(len(x)), value)

    def rebind(other: Condition) -> None:
        if value is not None:
            value.copy_(other.value)

    return Predict(predict, rebind=rebind)


def sequential_cfg(network: Denoiser, condition: Condition | None, scale: float) -> Predict:
    """Two calls of B samples, one with and one without the condition."""
    if scale == 1:
        return unguided(network, condition, scale)
    value, null = _both(condition, scale)

    def predict(x: Tensor, t: Tensor) -> Guided:
        t = t.expand(len(x))
        return Guided(network(x, t, value), network(x, t, null), scale)

    def rebind(other: Condition) -> None:
        value.copy_(other.value)
        null.copy_(other.null)

    return Predict(predict, rebind=rebind)


def batched_cfg(network: Denoiser, condition: Condition | None, scale: float) -> Predict:
    """One call of 2B samples: the conditional half, then the unconditional half."""
    if scale == 1:
        return unguided(network, condition, scale)
    both = torch.cat(_both(condition, scale))  # [2B, ...]

    def predict(twice: Tensor, t: Tensor) -> Guided:
        conditional, unconditional = network(twice, t.expand(len(twice)), both).chunk(2)
        return Guided(conditional, unconditional, scale)

    def rebind(other: Condition) -> None:
        both.copy_(torch.cat([other.value, other.null]))

    return Predict(predict, copies=2, rebind=rebind)


def _both(condition: Condition | None, scale: float) -> tuple[Tensor, Tensor]:
    if condition is None:
        raise UsageError(f"guidance {scale:g} needs a condition (labels or an embedding); without one it is 1")
    return condition.value.clone(), condition.null.clone()
