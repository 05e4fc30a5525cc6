"""The Triton kernels of the posterior update; what changes from step to step is read from memory."""

import triton
import triton.language as tl

from kernels.philox import normals


@triton.jit
def _tile(elements, BLOCK: tl.constexpr):
    """(sample, positions within the sample [BLOCK], which of them exist) of this program."""
    tiles = tl.cdiv(elements, BLOCK)
    program = tl.program_id(0)
    positions = (program % tiles) * BLOCK + tl.arange(0, BLOCK)
    return (program // tiles).to(tl.int64), positions, positions < elements


@triton.jit
def _mean(x, row, conditional, unconditional, scale, sample, positions, exists, batch_stride, plane,
          channel_stride, pixel_stride):  # fmt: skip
    """c·x0 + d·x with x0 = clamp(a·x - b·out, ±bound), NaN included; guidance is combined in float32."""
    if plane is None:  # a sample's elements are contiguous
        at = sample * batch_stride + positions
    else:
        at = sample * batch_stride + positions // plane * channel_stride + positions % plane * pixel_stride
    out = tl.load(conditional + at, mask=exists).to(tl.float32)
    if unconditional is not None:
        base = tl.load(unconditional + at, mask=exists).to(tl.float32)
        out = base + scale * (out - base)
    a, b, c, d = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    bound = tl.load(row + 5)
    x0 = tl.clamp(a * x - b * out, -bound, bound, propagate_nan=tl.PropagateNan.ALL)
    return c * x0 + d * x


@triton.jit
def posterior(destination, x, z, row, conditional, unconditional, scale, elements, batch_stride, plane,
              channel_stride, pixel_stride, BLOCK: tl.constexpr):  # fmt: skip
    """One program writes BLOCK elements of one sample; z [B, elements] is read from memory."""
    sample, positions, exists = _tile(elements, BLOCK)
    at = sample * elements + positions
    state = tl.load(x + at, mask=exists)
    mean = _mean(state, row, conditional, unconditional, scale, sample, positions, exists,
                 batch_stride, plane, channel_stride, pixel_stride)  # fmt: skip
    noise = tl.load(z + at, mask=exists).to(tl.float32)
    tl.store(destination + at, mean + tl.load(row + 4) * noise, mask=exists)


@triton.jit
def posterior_drawn(destination, x, seed, sample_ids, step, row, conditional, unconditional, scale, elements,
                    batch_stride, plane, channel_stride, pixel_stride, BLOCK: tl.constexpr):  # fmt: skip
    """The same with noise drawn in registers; seed and step are pointers to int64, sample_ids to [B]."""
    sample, positions, exists = _tile(elements, BLOCK)
    at = sample * elements + positions
    state = tl.load(x + at, mask=exists)
    result = _mean(state, row, conditional, unconditional, scale, sample, positions, exists,
                   batch_stride, plane, channel_stride, pixel_stride)  # fmt: skip
    sigma = tl.load(row + 4)
    if sigma != 0.0:
        first = (tl.program_id(0) % tl.cdiv(elements, BLOCK)) * (BLOCK // 4)
        noise = normals(tl.load(seed), tl.load(sample_ids + sample), tl.load(step), first, BLOCK // 4)
        result += sigma * noise
    tl.store(destination + at, result, mask=exists)
