"""The posterior update as one pass of C++ over a CPU's memory; the noise is read, or drawn in registers.

Runs on the calling thread alone and takes no part in autograd or in `torch.compile`.
"""

import torch
from torch import Tensor, float32

from kernels.inputs import GuidedLike, halves, remembered, same_shape
from kernels.native_build import library


def available() -> str | None:
    """Why the native kernel cannot run here, or None where it can; builds it on the first call."""
    try:
        library()
    except RuntimeError as error:
        return str(error)
    return None


def native_posterior(
    x: Tensor,
    out: Tensor | GuidedLike,
    z: Tensor,
    row: Tensor,
    destination: Tensor | None = None,
    before: Tensor | None = None,
    x0: Tensor | None = None,
) -> Tensor:
    """`sampler.posterior.posterior` in one pass; equal to it bit for bit where x, out and z are float32.

    x, z: [B, ...] float32; out: the same shape, any float dtype (half precision is widened first), or a
    guided pair, combined in registers; row: [6] (a, b, c, d, σ, bound). Inputs that are not contiguous
    are copied. destination: contiguous, may be x; a fresh tensor otherwise. NaN is propagated. z is not read
    where σ = 0.
    With memory, row is [7], with g; before: the x0 of the step before, like x, which is not read where g = 0; x0:
    where this step's goes, contiguous, may be `before`.
    """
    conditional, unconditional, scale = _parts(out)
    update = library().posterior
    to = torch.empty_like(x, memory_format=torch.contiguous_format) if destination is None else destination
    if update(
        to._cdata, x._cdata, conditional._cdata, None if unconditional is None else unconditional._cdata, scale,
        row._cdata, None if before is None else before._cdata, None if x0 is None else x0._cdata, z._cdata,
    ):  # fmt: skip
        return to
    x = _state(x, to)
    pointers, _kept = _converted(x, to, out, row, before, x0)
    z = _plain("z", z, x)
    _must(update(*pointers, z._cdata))
    return to


def native_posterior_drawn(
    x: Tensor,
    out: Tensor | GuidedLike,
    seed: int,
    sample_ids: Tensor,
    step: int | Tensor,
    row: Tensor,
    destination: Tensor | None = None,
    before: Tensor | None = None,
    x0: Tensor | None = None,
) -> Tensor:
    """`native_posterior` with z = `sampler.noise.philox_normal(seed, sample_ids, step, ...)`, never stored.

    sample_ids: [B] int64; step: an integer or a tensor of one. Nothing is drawn where σ = 0.
    """
    conditional, unconditional, scale = _parts(out)
    update, draw = library().posterior_drawn, (_seed(seed), int(step))
    to = torch.empty_like(x, memory_format=torch.contiguous_format) if destination is None else destination
    if update(
        to._cdata, x._cdata, conditional._cdata, None if unconditional is None else unconditional._cdata, scale,
        row._cdata, None if before is None else before._cdata, None if x0 is None else x0._cdata, sample_ids._cdata,
        *draw,
    ):  # fmt: skip
        return to
    x = _state(x, to)
    pointers, _kept = _converted(x, to, out, row, before, x0)
    if x.dim() == 0:
        raise ValueError("x has no dimension of samples")
    ids = _ids(sample_ids, len(x))
    _must(update(*pointers, ids._cdata, *draw))
    return to


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


def _parts(out: Tensor | GuidedLike) -> tuple[Tensor, Tensor | None, float]:
    if isinstance(out, Tensor):
        return out, None, 1.0
    return out.conditional, out.unconditional, float(out.scale)


# What the kernel did not take as it was: converted, or refused in a sentence


def _converted(
    x: Tensor, to: Tensor, out: Tensor | GuidedLike, row: Tensor, before: Tensor | None, x0: Tensor | None
) -> tuple[list, list[Tensor]]:
    """The kernel's first eight arguments, and the tensors behind them, which must outlive the call."""
    conditional, unconditional, scale = halves(out, x)
    conditional, row = _plain("out", conditional, x), _row(row, remembered(before, x0, x))
    unconditional = None if unconditional is None else _plain("out.unconditional", unconditional, x)
    before = None if before is None else _plain("before", before, x)
    if x0 is not None:
        _written("x0", x0, x)
    tensors = (to, x, conditional, unconditional, row, before, x0)
    pointers = [None if tensor is None else tensor._cdata for tensor in tensors]
    return [*pointers[:4], scale, *pointers[4:]], [tensor for tensor in tensors if tensor is not None]


def _state(x: Tensor, to: Tensor) -> Tensor:
    """x, contiguous; its successor can go where it should."""
    if x.dtype is not float32 or not x.is_cpu:
        raise ValueError(f"x is {x.dtype} on {x.device}; the native kernel takes torch.float32 on a CPU")
    _written("destination", to, x)
    return _dense(x)


def _written(name: str, to: Tensor, x: Tensor) -> None:
    same_shape(name, to, x)
    if to.dtype is not float32 or not to.is_contiguous():
        raise ValueError(f"{name} must be contiguous and torch.float32, not {to.dtype}")


def _plain(name: str, tensor: Tensor, x: Tensor) -> Tensor:
    """float32 and contiguous, as the kernel reads it."""
    same_shape(name, tensor, x)
    return _dense(tensor.to(float32))


def _dense(tensor: Tensor) -> Tensor:
    return tensor.resolve_neg().contiguous()


def _must(made: bool) -> None:
    if not made:
        raise RuntimeError("the native kernel takes dense tensors of PyTorch's own, and one of these is not")


def _row(row: Tensor, remembers: bool) -> Tensor:
    if row.numel() != 6 + remembers:
        named = f"{6 + remembers} coefficients (a, b, c, d, σ, bound{', g' * remembers})"
        raise ValueError(f"row must hold {named}, got the shape {list(row.shape)}")
    if not row.is_cpu:
        raise ValueError(f"row is on {row.device}, but x is on cpu")
    return _dense(row.to(float32))


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
