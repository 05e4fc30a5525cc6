"""The posterior update as one Triton kernel; the noise is read from memory, or drawn in registers.

Triton is imported on the first call, so this module can be imported without it. Takes no part in autograd.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kernels.inputs import GuidedLike, halves, same_shape

BLOCK = 512  # elements of one program: one 128-bit access for each of its 128 threads
# Fused multiply-adds off: the update then rounds as PyTorch's separate operations do
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


@lru_cache
def available(device: torch.device) -> str | None:
    """Why the Triton kernel cannot run on tensors of this device, or None where it can."""
    try:
        import triton
    except ImportError:
        return "the Triton kernel needs Triton: pip install triton"
    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        return f"the Triton kernel needs a GPU, not {device} (or TRITON_INTERPRET=1, for testing)"
    return None


def fused_posterior(x: Tensor, out: Tensor | GuidedLike, z: Tensor, row: Tensor) -> Tensor:
    """`sampler.posterior.posterior` in one pass over memory, equal to it bit for bit in float32.

    x: [B, ...] float32, z: the same shape; out: the same shape in float32, float16 or bfloat16, strided
    if need be, or a guided pair, combined in float32; row: [6] float32 on the device. NaN is propagated.
    """
    x, row = _state(x, row)
    from kernels import posterior_kernel

    same_shape("z", z, x)
    return _launch(posterior_kernel.posterior, x, out, (z.contiguous(), row))


def fused_posterior_drawn(
    x: Tensor,
    out: Tensor | GuidedLike,
    seed: int | Tensor,
    sample_ids: Tensor,
    step: int | Tensor,
    row: Tensor,
) -> Tensor:
    """`fused_posterior` with z = `sampler.noise.philox_normal(seed, sample_ids, step, ...)`, never stored.

    sample_ids: [B] int64; seed, step: int64 tensors of one element, read when the kernel runs, so that a
    captured graph sees their new values; a plain integer stays frozen in it. Nothing is drawn where σ = 0.
    """
    x, row = _state(x, row)
    from kernels import posterior_kernel

    if sample_ids.shape != (len(x),) or sample_ids.dtype is not torch.int64 or sample_ids.device != x.device:
        raise ValueError(
            f"sample_ids must be [{len(x)}] torch.int64 on {x.device}, got {list(sample_ids.shape)} "
            f"{sample_ids.dtype} on {sample_ids.device}"
        )
    key = (_word("seed", seed, x.device), sample_ids.contiguous(), _word("step", step, x.device), row)
    return _launch(posterior_kernel.posterior_drawn, x, out, key)


def _launch(kernel: Any, x: Tensor, out: Tensor | GuidedLike, inputs: tuple[Tensor, ...]) -> Tensor:
    conditional, unconditional, scale = halves(out, x)
    destination = torch.empty_like(x)
    if x.numel() == 0:
        return destination
    strides = _strides(conditional)
    if strides is None or (unconditional is not None and unconditional.stride() != conditional.stride()):
        conditional = conditional.contiguous()
        unconditional = None if unconditional is None else unconditional.contiguous()
        strides = (conditional.stride(0), None, 0, 0)
    elements = x.numel() // len(x)
    tiles = (elements + BLOCK - 1) // BLOCK
    with torch.cuda.device_of(x):
        kernel[(len(x) * tiles,)](
            destination, x, *inputs, conditional, unconditional, scale, elements, *strides,
            BLOCK=BLOCK, **OPTIONS,
        )  # fmt: skip
    return destination


def _strides(out: Tensor) -> tuple[int, int | None, int, int] | None:
    """(batch, plane, channel, pixel): plane, in pixels, is None where a sample is contiguous.

    Covers [B, C, H, W] in either memory format and a slice of its channels; None: copy it first.
    """
    if out[0].is_contiguous():
        return out.stride(0), None, 0, 0
    if out.dim() == 4 and out.stride(2) == out.shape[3] * out.stride(3):
        return out.stride(0), out.shape[2] * out.shape[3], out.stride(1), out.stride(3)
    return None


def _state(x: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    reason = available(x.device)
    if reason is not None:
        raise RuntimeError(reason)
    if x.dtype is not torch.float32:
        raise ValueError(f"x is {x.dtype}; the state of the Triton kernel is torch.float32")
    if row.shape != (6,) or row.dtype is not torch.float32 or row.device != x.device:
        raise ValueError(
            f"row must be [6] torch.float32 on {x.device}, got {list(row.shape)} {row.dtype} on {row.device}"
        )
    return x.contiguous(), row.contiguous()


def _word(name: str, value: int | Tensor, device: torch.device) -> Tensor:
    """One int64 on the device."""
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{name} {value} is outside 0…2^64-1")
        return _kept(value, device)
    if value.numel() != 1 or value.dtype is not torch.int64 or value.device != device:
        raise ValueError(f"{name} must be one torch.int64 on {device}, got {list(value.shape)} {value.dtype}")
    return value


@lru_cache(maxsize=4096)
def _kept(value: int, device: torch.device) -> Tensor:
    """An unsigned 64-bit integer's bits; kept, so that a later capture copies nothing from the host."""
    return torch.tensor([value - (1 << 64) if value >= 1 << 63 else value], device=device)
