"""The posterior update as one pass of C++ over a CPU's memory; the noise is read, or drawn in registers.

Runs on the calling thread alone and takes no part in autograd or in `torch.compile`.
"""

import torch
from torch import Size, Tensor, float32

from kernels.inputs import GuidedLike, halves, same_shape
from kernels.native_build import library


def available() -> str | None:
    """Why the native kernel cannot run here, or None where it can; builds it on the first call."""
    try:
        library()
    except RuntimeError as error:
        return str(error)
    return None


def native_posterior(
    x: Tensor, out: Tensor | GuidedLike, z: Tensor, row: Tensor, destination: Tensor | None = None
) -> Tensor:
    """`sampler.posterior.posterior` in one pass; equal to it bit for bit where x, out and z are float32.

    x, z: [B, ...] float32; out: the same shape, any float dtype (half precision is widened first), or a
    guided pair, combined in registers; row: [6] (a, b, c, d, σ, bound). Inputs that are not contiguous
    are copied. destination: contiguous, may be x; a fresh tensor otherwise. NaN is propagated. z is not read
    where σ = 0.
    """
    shape = x.shape
    x, destination = _state(x, shape, destination)
    conditional, unconditional, scale = _halves(out, x, shape)
    z, row = _plain("z", z, x, shape), _row(row)  # named: what was copied lives until the kernel has read it
    library().posterior(
        destination.data_ptr(), x.data_ptr(), conditional.data_ptr(),
        None if unconditional is None else unconditional.data_ptr(), scale, row.data_ptr(),
        z.data_ptr(), x.numel(),
    )  # fmt: skip
    return destination


def native_posterior_drawn(
    x: Tensor,
    out: Tensor | GuidedLike,
    seed: int,
    sample_ids: Tensor,
    step: int | Tensor,
    row: Tensor,
    destination: Tensor | None = None,
) -> Tensor:
    """`native_posterior` with z = `sampler.noise.philox_normal(seed, sample_ids, step, ...)`, never stored.

    sample_ids: [B] int64; step: an integer or a tensor of one. Nothing is drawn where σ = 0.
    """
    shape = x.shape
    x, destination = _state(x, shape, destination)
    conditional, unconditional, scale = _halves(out, x, shape)
    row, ids = _row(row), _ids(sample_ids, len(x))
    library().posterior_drawn(
        destination.data_ptr(), x.data_ptr(), conditional.data_ptr(),
        None if unconditional is None else unconditional.data_ptr(), scale, row.data_ptr(),
        ids.data_ptr(), len(x), x.numel() // max(len(x), 1), _seed(seed), int(step),
    )  # fmt: skip
    return destination


def native_normal(seed: int, sample_ids: Tensor, step: int | Tensor, elements: int) -> Tensor:
    """`sampler.noise.philox_normal`: [B, elements] float32 from sample_ids [B] int64, within a few ulp."""
    ids = _ids(sample_ids, len(sample_ids))
    destination = torch.empty(len(ids), elements)
    library().normal(destination.data_ptr(), ids.data_ptr(), len(ids), elements, _seed(seed), int(step))
    return destination


def native_words(seed: int, sample_ids: Tensor, step: int | Tensor, blocks: int) -> Tensor:
    """The words under `native_normal`, [B, blocks, 4] int64, equal to `sampler.noise.philox_4x32`'s."""
    ids = _ids(sample_ids, len(sample_ids))
    destination = torch.empty(len(ids), blocks, 4, dtype=torch.int32)
    library().words(destination.data_ptr(), ids.data_ptr(), len(ids), blocks, _seed(seed), int(step))
    return destination.to(torch.int64) & 0xFFFF_FFFF


# An update takes some 30 microseconds, and each question to a tensor a tenth of one: each is asked once, and
# what does not fit is told apart only after that.


def _state(x: Tensor, shape: Size, destination: Tensor | None) -> tuple[Tensor, Tensor]:
    """x, contiguous, and where its successor goes."""
    if x.dtype is not float32 or not x.is_cpu:
        raise ValueError(f"x is {x.dtype} on {x.device}; the native kernel takes torch.float32 on a CPU")
    if destination is x and x.is_contiguous():
        return x, x
    x = x.contiguous()
    if destination is None:
        return x, torch.empty_like(x)
    same_shape("destination", destination, x)
    if destination.dtype is not float32 or not destination.is_contiguous():
        raise ValueError(f"destination must be contiguous and torch.float32, not {destination.dtype}")
    return x, destination


def _halves(out: Tensor | GuidedLike, x: Tensor, shape: Size) -> tuple[Tensor, Tensor | None, float]:
    """`kernels.inputs.halves` as the kernel reads them."""
    if isinstance(out, Tensor):
        return _plain("out", out, x, shape), None, 1.0
    conditional, unconditional, scale = halves(out, x)
    if unconditional is not None:
        unconditional = _plain("out.unconditional", unconditional, x, shape)
    return _plain("out.conditional", conditional, x, shape), unconditional, scale


def _plain(name: str, tensor: Tensor, x: Tensor, shape: Size) -> Tensor:
    """float32 and contiguous, as the kernel reads it; no copy where it is so already."""
    if tensor.dtype is float32 and tensor.shape == shape and tensor.is_cpu and tensor.is_contiguous():
        return tensor
    same_shape(name, tensor, x)
    return tensor.to(float32).contiguous()


def _row(row: Tensor) -> Tensor:
    if row.numel() != 6:
        raise ValueError(f"row must hold 6 coefficients (a, b, c, d, σ, bound), got the shape {list(row.shape)}")
    if not row.is_cpu:
        raise ValueError(f"row is on {row.device}, but x is on cpu")
    return row if row.dtype is float32 and row.is_contiguous() else row.to(float32).contiguous()


def _seed(seed: int) -> int:
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed {seed} is outside 0…2^64-1")
    return seed


def _ids(sample_ids: Tensor, batch: int) -> Tensor:
    if sample_ids.dtype is not torch.int64 or sample_ids.shape != (batch,) or not sample_ids.is_cpu:
        raise ValueError(
            f"sample_ids must be [{batch}] torch.int64 on the CPU, got {list(sample_ids.shape)} "
            f"{sample_ids.dtype} on {sample_ids.device}"
        )
    return sample_ids.contiguous()
