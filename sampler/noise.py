"""Where noise comes from: counter-based (Philox) or a `torch.Generator`, handed to the loop from outside.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed by the
seed; its counter is (element // 4, step, sample id low, sample id high). Sample 17 of seed 3 thus
gets the same noise alone, in a batch of 64 or on another machine, and a kernel can draw it in registers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sampler.errors import UsageError

MASK32 = 0xFFFF_FFFF
ROUND_A, ROUND_B = 0xD251_1F53, 0xCD9E_8D57  # multipliers, Salmon et al. 2011, table 2
WEYL_A, WEYL_B = 0x9E37_79B9, 0xBB67_AE85  # key increments: golden ratio and √3 - 1


class NoiseKey(NamedTuple):
    """What a kernel needs to draw one step's noise itself: seed, sample ids [B] int64, timestep.

    seed, step: integers, or int64 tensors of one element; a tensor holds the low 64 bits of the seed.
    """

    seed: int | Tensor
    sample_ids: Tensor
    step: int | Tensor

    def on(self, device: torch.device) -> "NoiseKey":
        """The same key with its seed and step as tensors [1] on the device, where a kernel reads them."""
        seed, step = (
            word if isinstance(word, Tensor) else torch.tensor([_signed(word)], device=device)
            for word in (self.seed, self.step)
        )
        return NoiseKey(seed, self.sample_ids.to(device), step)

    def draw(self, like: Tensor) -> Tensor:
        """The noise of this key, in the shape and dtype of `like` [B, ...]."""
        z = philox_normal(self.seed, self.sample_ids, self.step, like[0].numel())
        return z.reshape(like.shape).to(like.dtype)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit integer."""
    return word - (1 << 64) if word >= 1 << 63 else word


class Noise(Protocol):
    """A source of standard normal noise for a batch of samples."""

    def draw(self, step: int, like: Tensor) -> Tensor:
        """Noise in the shape [B, ...], dtype and device of `like`, for the timestep `step`."""
        ...

    def select(self, start: int, stop: int) -> "Noise":
        """The source for samples start…stop-1 of the request."""
        ...


@dataclass(frozen=True, eq=False)
class PhiloxNoise:
    """Noise that is a function of (seed, sample id, step, element) and of nothing else.

    sample_ids: one integer in 0…2^63-1 a sample, in the order of the batch.
    """

    seed: int
    sample_ids: Sequence[int] | range
    _ids: dict = field(default_factory=dict, repr=False)  # the ids as a tensor, one a device

    def __post_init__(self):
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"seed {self.seed} is outside 0…2^64-1")
        low, high = min(self.sample_ids, default=0), max(self.sample_ids, default=0)
        if low < 0:
            raise UsageError(f"sample id {low} is negative; ids start at 0")
        if high >= 1 << 63:
            raise UsageError(f"sample id {high} is outside 0…2^63-1")

    def draw(self, step: int, like: Tensor) -> Tensor:
        return self.key(step, like).draw(like)

    def key(self, step: int | Tensor, like: Tensor) -> NoiseKey:
        """The key with which a fused update draws what `draw` would give."""
        if len(like) != len(self.sample_ids):
            raise UsageError(f"a batch of {len(like)} was asked of {len(self.sample_ids)} sample ids")
        if like.device not in self._ids:
            self._ids[like.device] = torch.tensor(list(self.sample_ids), device=like.device)
        return NoiseKey(self.seed, self._ids[like.device], step)

    def select(self, start: int, stop: int) -> "PhiloxNoise":
        return PhiloxNoise(self.seed, self.sample_ids[start:stop])


@dataclass(frozen=True, eq=False)
class GeneratorNoise:
    """Noise from a `torch.Generator` (None: torch's global one), in the order it is asked for."""

    generator: torch.Generator | None = None

    def draw(self, step: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=like.device)

    def select(self, start: int, stop: int) -> "GeneratorNoise":
        return self


def philox_4x32(counter: Sequence[Tensor | int], key: Sequence[Tensor | int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32.

    counter: four words and key: two words, each an integer (or int64 tensor) in 0…2^32-1.
    Returns four int64 tensors of random 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2^64, which leaves both 32-bit halves right
        a, b = c0 * ROUND_A, c2 * ROUND_B
        c0, c1, c2, c3 = (
            ((b >> 32) & MASK32) ^ c1 ^ k0, b & MASK32,
            ((a >> 32) & MASK32) ^ c3 ^ k1, a & MASK32,
        )  # fmt: skip
        k0, k1 = (k0 + WEYL_A) & MASK32, (k1 + WEYL_B) & MASK32
    return c0, c1, c2, c3  # type: ignore[return-value]


def philox_normal(seed: int | Tensor, sample_ids: Tensor, step: int | Tensor, elements: int) -> Tensor:
    """Standard normal numbers [B, elements] float32 for the B sample ids at one step.

    Words are made normal in pairs by Box & Muller (1958), in float64 and rounded once; |z| stays below 6.8.
    seed, step: integers, or int64 tensors of one element (which a captured graph reads anew).
    """
    blocks = torch.arange((elements + 3) // 4, device=sample_ids.device)[None, :]
    ids = sample_ids[:, None]
    counter = (blocks, step, ids & MASK32, (ids >> 32) & MASK32)
    w0, w1, w2, w3 = philox_4x32(counter, (seed & MASK32, (seed >> 32) & MASK32))
    z = torch.stack([*_box_muller(w0, w1), *_box_muller(w2, w3)], dim=-1)  # [B, elements / 4, 4]
    return z.flatten(1)[:, :elements]


def _box_muller(w0: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    u = (w0.to(torch.float64) + 0.5) * 2.0**-32  # in (0, 1), exact
    angle = w1.to(torch.float64) * (2.0**-32 * 2 * math.pi)
    radius = torch.sqrt(-2 * torch.log(u))
    return (radius * torch.cos(angle)).float(), (radius * torch.sin(angle)).float()
