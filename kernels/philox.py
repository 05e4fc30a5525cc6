"""Standard normal numbers drawn in a Triton kernel's registers, the same as `sampler.noise.philox_normal`."""

import triton
import triton.language as tl

NEAR_ONE = tl.constexpr(0xB504F334)  # √½ in 32 bits: the larger radius words
SQRT_HALF = tl.constexpr(0x3F3504F3)  # √½ as a float32
RADIANS = tl.constexpr(1.4629180792671596e-9)  # 2π / 2^32, of one unit of an angle word


@triton.jit
def words(seed, sample_id, step, blocks):
    """Four words for each counter (block, step, id low, id high): blocks [N] int -> 4 x [N] uint32.

    `sampler.noise.philox_4x32` bit for bit; seed, sample_id and step are scalars.
    """
    c0 = blocks.to(tl.uint32)
    none = tl.zeros_like(c0)
    c1 = none + (step & 0xFFFFFFFF).to(tl.uint32)
    c2 = none + (sample_id & 0xFFFFFFFF).to(tl.uint32)
    c3 = none + ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed, c0, c1, c2, c3)


@triton.jit
def logarithm(word):
    """log u of u = (word + ½) / 2^32, within 2 ulp: u = 2^n (1 + f), 1 + f in [√½, √2), and a polynomial.

    log(1 + f) = f - f²/2 + f³ p(f). Near u = 1, f is taken from the complement of the word: 1 - u would
    lose the bits that decide how small the radius is.
    """
    near_one = word >= NEAR_ONE
    u = (word.to(tl.float32) * 2.0**-32 + 2.0**-33).to(tl.int32, bitcast=True)
    n = tl.where(near_one, 0, (u - SQRT_HALF) >> 23)
    q = (word ^ 0xFFFFFFFF).to(tl.float32) * 2.0**-32 + 2.0**-33
    f = tl.where(near_one, -q, (u - (n << 23)).to(tl.float32, bitcast=True) - 1.0)
    k = n.to(tl.float32)
    p = tl.fma(f, -0.076344296, 0.1276155)
    p = tl.fma(p, f, -0.13160194)
    p = tl.fma(p, f, 0.14201762)
    p = tl.fma(p, f, -0.16623357)
    p = tl.fma(p, f, 0.20001227)
    p = tl.fma(p, f, -0.25000823)
    p = tl.fma(p, f, 0.33333331)
    f2 = f * f
    tail = tl.fma(f2, -0.5, tl.fma(p * f, f2, k * 1.4286068e-6))
    return tl.fma(k, 0.693145751953125, f + tail)  # log 2 in two parts, the first exact times k


@triton.jit
def box_muller(radius_word, angle_word):
    """√(-2 log u)·(cos, sin) of the angle 2π·word / 2^32 (Box & Muller 1958), from two words.

    Quarter turns are the word's two top bits, so they are taken off exactly, as integers, and a short
    polynomial does for the rest; `tl.sin` and `tl.cos` would bring a slow path with a table in memory.
    """
    radius = tl.sqrt_rn(-2.0 * logarithm(radius_word))  # `tl.sqrt` is an approximation on a device
    quarter = (angle_word + 0x20000000) >> 30
    r = (angle_word - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float32) * RADIANS  # within ±π/4
    r2 = r * r
    s = tl.fma(tl.fma(r2, -1.9517266e-4, 8.332178e-3), r2, -0.16666655)
    s = tl.fma(s * r2, r, r)  # |error| < 4e-9
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
