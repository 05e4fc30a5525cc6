"""The Triton kernel of the posterior update: each capability is an argument that is None where it is not used.

None is a compile-time constant to Triton, so every combination is a kernel of its own without a branch. What
changes from step to step is read from memory: nothing is frozen into a captured graph.
"""

import triton
import triton.language as tl

from kernels.philox import normals
from kernels.tuning import device_ms, kept

LANE = tl.constexpr(4)  # elements of one 128-bit access to float32, and of one Philox counter
# Fused multiply-adds off: the update then rounds as PyTorch's separate operations do
OPTIONS = {"enable_fp_fusion": False}
INTERPRETED = triton.knobs.runtime.interpret


def configurations() -> list[triton.Config]:
    """What the choice is made from, by measurement on the device; one under the interpreter, which has no clock."""
    shapes = [(1, 4)] if INTERPRETED else [(vectors, warps) for vectors in (1, 2) for warps in (2, 4, 8)]
    return [triton.Config({"BLOCK": 32 * LANE.value * v * w}, num_warps=w) for v, w in shapes]


def _measured(call, quantiles):
    """A configuration's milliseconds, out of which the tuner chooses; the state may be overwritten again and again."""
    with kept(posterior.nargs["destination"]), kept(posterior.nargs["x0"]):
        return device_ms(call, quantiles)


@triton.jit
def _tile(elements, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """(sample, first counter, positions within the sample [BLOCK], which of them exist) of this program."""
    if WIDE:  # positions or strides beyond 2^31
        elements = elements.to(tl.int64)
    tiles = tl.cdiv(elements, BLOCK)
    sample, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    positions = tile * BLOCK + tl.arange(0, BLOCK)
    return sample, tile * (BLOCK // LANE), positions, positions < elements


@triton.jit
def _prediction(conditional, unconditional, scale, at, exists):
    """The network's output in float32, its halves combined (`sampler.posterior.combine`)."""
    out = tl.load(conditional + at, mask=exists).to(tl.float32)
    if unconditional is not None:
        base = tl.load(unconditional + at, mask=exists).to(tl.float32)
        out = base + scale * (out - base)
    return out


@triton.jit
def _estimate(x, out, row):
    """x0 = clamp(a·x - b·out, ±bound), NaN included."""
    a, b, bound = tl.load(row), tl.load(row + 1), tl.load(row + 5)
    return tl.clamp(a * x - b * out, -bound, bound, propagate_nan=tl.PropagateNan.ALL)


@triton.autotune(configurations(), key=["size", "plane"], do_bench=_measured, cache_results=True)
@triton.jit(do_not_specialize=["size"])
def posterior(destination, feed, feed_again, x0, x, before, z, seed, sample_ids, step, row, conditional, unconditional,
              scale, elements, batch_stride, plane, channel_stride, pixel_stride, size,
              WIDE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One program writes BLOCK elements of one sample of `destination` [B, elements] float32, which may be x.

    before, x0: the estimate of the step before, and where this step's goes, which may be the same; or None.
    z: noise in memory, or None; seed, sample_ids [B], step: pointers to int64, the noise's key, or None.
    feed, feed_again: where the next network input goes, in its dtype, or None. plane: None where a sample of
    the output is contiguous. size: in what the choice of BLOCK is made anew.
    """
    sample, counter, positions, exists = _tile(elements, WIDE, BLOCK)
    at = sample * elements + positions
    if plane is None:
        out_at = sample * batch_stride + positions
    else:
        out_at = sample * batch_stride + positions // plane * channel_stride + positions % plane * pixel_stride
    state = tl.load(x + at, mask=exists)
    estimate = _estimate(state, _prediction(conditional, unconditional, scale, out_at, exists), row)
    result = tl.load(row + 2) * estimate
    if before is not None:
        result += tl.load(row + 6) * tl.load(before + at, mask=exists)
        tl.store(x0 + at, estimate, mask=exists)
    result += tl.load(row + 3) * state
    sigma = tl.load(row + 4)
    if z is not None:
        result += sigma * tl.load(z + at, mask=exists).to(tl.float32)
    if seed is not None:  # noqa: SIM102 - this branch is taken by the compiler, the next one by the device
        if sigma != 0.0:
            noise = normals(tl.load(seed), tl.load(sample_ids + sample), tl.load(step), counter, BLOCK // LANE)
            result += sigma * noise
    tl.store(destination + at, result, mask=exists)
    if feed is not None:
        tl.store(feed + at, result.to(feed.dtype.element_ty), mask=exists)
    if feed_again is not None:
        tl.store(feed_again + at, result.to(feed_again.dtype.element_ty), mask=exists)


@triton.jit
def philox_normal(destination, seed, sample_ids, step, elements, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """The noise alone, written to memory: [B, elements] float32."""
    sample, counter, positions, exists = _tile(elements, WIDE, BLOCK)
    noise = normals(tl.load(seed), tl.load(sample_ids + sample), tl.load(step), counter, BLOCK // LANE)
    tl.store(destination + sample * elements + positions, noise, mask=exists)
