"""The posterior update as one Triton kernel: guidance, noise and the next network input in one pass over memory.

Triton is imported on the first call, so this module can be imported without it. Takes no part in autograd.
"""

from functools import lru_cache

import torch
from torch import Tensor

from kernels.inputs import GuidedLike, KeyLike, halves, remembered, same_shape

NARROW = 2**31 - 2**16  # positions up to here are counted in 32 bits, the last block's overhang included


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


def fused_posterior(
    x: Tensor,
    out: Tensor | GuidedLike,
    z: Tensor,
    row: Tensor,
    destination: Tensor | None = None,
    *,
    before: Tensor | None = None,
    x0: Tensor | None = None,
    feed: Tensor | None = None,
) -> Tensor:
    """`sampler.posterior.posterior` in one pass over memory, equal to it bit for bit in float32.

    x: [B, ...] float32, z: the same shape; out: the same shape in float32, float16 or bfloat16, strided
    if need be, or a guided pair, combined in float32; row: [6] float32 on the device. NaN is propagated.
    destination: contiguous, x itself or memory that no other input shares; a fresh tensor otherwise.
    With memory, row is [7], with g; before: the x0 of the step before, like x; x0: where this step's goes, contiguous,
    `before` itself or memory that no other input shares. feed: where what the network reads next goes, [B or 2B, ...]
    contiguous, of any float dtype: the next state, cast and doubled.
    """
    same_shape("z", z, x)
    return _launch(x, out, row, destination, z=z.contiguous(), before=before, x0=x0, feed=feed)


def fused_posterior_drawn(
    x: Tensor,
    out: Tensor | GuidedLike,
    key: KeyLike,
    row: Tensor,
    destination: Tensor | None = None,
    *,
    before: Tensor | None = None,
    x0: Tensor | None = None,
    feed: Tensor | None = None,
) -> Tensor:
    """`fused_posterior` with z = `sampler.noise.NoiseKey.draw`, made in registers and never stored.

    key: seed, sample_ids [B] int64, step. Where seed and step are int64 tensors of one element, they are read
    when the kernel runs, so that a captured graph sees their new values; a plain integer stays frozen in it.
    Nothing is drawn where σ = 0.
    """
    return _launch(x, out, row, destination, key=key, before=before, x0=x0, feed=feed)


def fused_normal(key: KeyLike, like: Tensor) -> Tensor:
    """`sampler.noise.NoiseKey.draw` by one kernel: standard normal numbers in the shape of `like`, float32."""
    from kernels import posterior_kernel

    destination = torch.empty_like(like, dtype=torch.float32)
    elements, block = like.numel() // max(1, len(like)), 512
    if like.numel():
        grid = (len(like) * -(-elements // block),)
        with torch.cuda.device_of(like):
            posterior_kernel.philox_normal[grid](
                destination, *_key(key, like), elements, WIDE=elements > NARROW, BLOCK=block, num_warps=4
            )
    return destination


def _launch(
    x: Tensor,
    out: Tensor | GuidedLike,
    row: Tensor,
    destination: Tensor | None,
    *,
    z: Tensor | None = None,
    key: KeyLike | None = None,
    before: Tensor | None = None,
    x0: Tensor | None = None,
    feed: Tensor | None = None,
) -> Tensor:
    x, row = _state(x, row, 6 + remembered(before, x0, x))
    before = None if before is None else before.contiguous()
    from kernels import posterior_kernel

    conditional, unconditional, scale = halves(out, x)
    destination = torch.empty_like(x) if destination is None else destination
    _check_written("destination", destination, x, "x", before, conditional, unconditional, z, x0)
    if before is not None and x0 is not None:
        _check_written("x0", x0, before, "before", x, conditional, unconditional, z)
    if x.numel() == 0:
        return destination
    strides = _strides(conditional)
    if strides is None or (unconditional is not None and unconditional.stride() != conditional.stride()):
        conditional = conditional.contiguous()
        unconditional = None if unconditional is None else unconditional.contiguous()
        strides = (conditional.stride(0), None, 0, 0)
    elements = x.numel() // len(x)
    reach = sum((size - 1) * stride for size, stride in zip(conditional.shape[1:], conditional.stride()[1:]))
    seed, ids, step = (None, None, None) if key is None else _key(key, x)
    feeds = (None, None) if feed is None else _feeds(feed, x)

    def grid(chosen: dict[str, int]) -> tuple[int]:
        return (len(x) * -(-elements // chosen["BLOCK"]),)

    with torch.cuda.device_of(x):
        posterior_kernel.posterior[grid](
            destination, *feeds, x0, x, before, z, seed, ids, step, row, conditional, unconditional, scale, elements,
            *strides, x.numel().bit_length(), WIDE=max(elements, reach) > NARROW, **posterior_kernel.OPTIONS,
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


def _state(x: Tensor, row: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    reason = available(x.device)
    if reason is not None:
        raise RuntimeError(reason)
    if x.dtype is not torch.float32:
        raise ValueError(f"x is {x.dtype}; the state of the Triton kernel is torch.float32")
    if row.shape != (columns,) or row.dtype is not torch.float32 or row.device != x.device:
        raise ValueError(
            f"row must be [{columns}] torch.float32 on {x.device}, got {list(row.shape)} {row.dtype} on {row.device}"
        )
    return x.contiguous(), row.contiguous()


def _check_written(name: str, to: Tensor, read: Tensor, read_name: str, *others: Tensor | None) -> None:
    """An element is read and written by the same thread, so `read` may be overwritten; nothing else that is read."""
    same_shape(name, to, read)
    if to.dtype is not torch.float32 or not to.is_contiguous():
        raise ValueError(f"{name} must be contiguous and torch.float32, not {to.dtype}")
    memory = to.untyped_storage().data_ptr()
    shared = [read] if to.data_ptr() != read.data_ptr() else []
    if any(t is not None and memory and t.untyped_storage().data_ptr() == memory for t in (*shared, *others)):
        raise ValueError(f"{name} shares memory with another input; only {read_name} itself may be overwritten")


def _feeds(feed: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The network's input in its one or two copies of the batch, each [B, ...]."""
    copies = len(feed) // len(x)
    if feed.shape != (copies * len(x), *x.shape[1:]) or copies not in (1, 2) or not feed.is_contiguous():
        raise ValueError(f"the network's input must be contiguous, x's shape or two of it, got {list(feed.shape)}")
    return feed[: len(x)], feed[len(x) :] if copies == 2 else None


def _key(key: KeyLike, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(seed, sample ids, step), each int64 on the device."""
    ids = key.sample_ids
    if ids.shape != (len(x),) or ids.dtype is not torch.int64 or ids.device != x.device:
        found = f"{list(ids.shape)} {ids.dtype} on {ids.device}"
        raise ValueError(f"sample_ids must be [{len(x)}] torch.int64 on {x.device}, got {found}")
    return _word("seed", key.seed, x.device), ids.contiguous(), _word("step", key.step, x.device)


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
