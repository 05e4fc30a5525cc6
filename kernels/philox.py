"""Standard normal numbers drawn in a Triton kernel's registers, the same as `sampler.noise.philox_normal`."""

import triton
import triton.language as tl

ANGLE = tl.constexpr(2.0**-32 * 6.283185307179586)  # radians for each unit of a 32-bit word


@triton.jit
def words(seed, sample_id, step, blocks):
    """Four words for each counter (block, step, id low, id high): blocks [N] int32 -> 4 x [N] uint32.

    `sampler.noise.philox_4x32` bit for bit; seed, sample_id and step are scalars.
    """
    c0 = blocks.to(tl.uint32)
    none = tl.zeros_like(c0)
    c1 = none + (step & 0xFFFFFFFF).to(tl.uint32)
    c2 = none + (sample_id & 0xFFFFFFFF).to(tl.uint32)
    c3 = none + ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed, c0, c1, c2, c3)


@triton.jit
def box_muller(radius_word, angle_word):
    """√(-2 log u)·(cos, sin) of an angle, from two words (Box & Muller 1958).

    Quarter turns are taken off the angle exactly (after Cody & Waite), so that short polynomials do;
    `tl.sin` and `tl.cos` would bring a slow path with a table in memory for angles that never occur.
    """
    u = radius_word.to(tl.float32) * 2.0**-32 + 2.0**-33  # in (0, 1]
    radius = tl.sqrt(-2.0 * tl.log(u))
    angle = angle_word.to(tl.float32) * ANGLE
    quarter = (angle * 0.63661975 + 0.5).to(tl.int32)  # 0…4
    k = quarter.to(tl.float32)
    r = angle - k * 1.570770263671875  # exact: 16 bits of π/2 times 3 bits
    r = tl.fma(k, -2.6063122e-5, r)  # and the rest of π/2
    r2 = r * r
    s = tl.fma(tl.fma(r2, -1.9517266e-4, 8.332178e-3), r2, -0.16666655)
    s = tl.fma(s * r2, r, r)  # |error| < 4e-9 for |r| <= π/4
    c = tl.fma(tl.fma(r2, 2.4438414e-5, -1.3887368e-3), r2, 4.1666646e-2)
    c = tl.fma(tl.fma(c, r2, -0.5), r2, 1.0)
    odd = (quarter & 1) == 1
    cosine = tl.where(odd, s, c)
    sine = tl.where(odd, c, s)
    cosine = tl.where(((quarter + 1) & 2) == 2, -cosine, cosine)
    sine = tl.where((quarter & 2) == 2, -sine, sine)
    return radius * cosine, radius * sine


@triton.jit
def normals(seed, sample_id, step, first, COUNTERS: tl.constexpr):
    """The normals of elements 4·first … 4·(first + COUNTERS) - 1 of one sample, [4·COUNTERS] float32."""
    w0, w1, w2, w3 = words(seed, sample_id, step, first + tl.arange(0, COUNTERS))
    z0, z1 = box_muller(w0, w1)
    z2, z3 = box_muller(w2, w3)
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), (4 * COUNTERS,))
