// Standard normal numbers from a counter: Philox-4x32-10 words, made normal in pairs by Box & Muller.
// The words equal sampler.noise.philox_4x32 bit for bit, the normals philox_normal within a few ulp.

#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace ddpm {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

constexpr int LANES = 8;      // counters advanced together
constexpr int COUNTERS = 64;  // counters of one chunk: 256 normals, which stay in the L1 cache

struct Key {
    uint64_t seed, sample_id;
    uint32_t step;
};

struct Words {
    alignas(32) uint32_t word[4][COUNTERS];
};

// Four 32-bit words, each in the low half of its lane; what the high halves hold does not matter.
using Four = uint64_t __attribute__((vector_size(32)));

inline Four multiply(Four words, uint32_t factor) {  // 32 x 32 -> 64 bits
#ifdef __AVX2__
    return (Four)_mm256_mul_epu32((__m256i)words, _mm256_set1_epi64x(factor));
#else
    return (words & UINT64_C(0xFFFFFFFF)) * (uint64_t)factor;
#endif
}

// Philox-4x32-10 (Salmon et al. 2011) of the counters (block, step, id low, id high) for `counters` blocks
// (rounded up to LANES) from `first`. Even blocks sit in half 0, odd ones in half 1.
inline void philox(Words& out, uint32_t first, int counters, Key key) {
    for (int i = 0; i < counters; i += LANES) {
        Four c[4][2];
        for (int half = 0; half < 2; half++) {
            const uint64_t block = (uint64_t)first + i + half;
            c[0][half] = Four{block, block + 2, block + 4, block + 6};
            c[1][half] = Four{} + (uint64_t)key.step;
            c[2][half] = Four{} + (key.sample_id & UINT64_C(0xFFFFFFFF));
            c[3][half] = Four{} + (key.sample_id >> 32);
        }
        uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
        for (int round = 0; round < 10; round++) {
            for (int half = 0; half < 2; half++) {
                const Four a = multiply(c[0][half], 0xD2511F53u), b = multiply(c[2][half], 0xCD9E8D57u);
                c[0][half] = (b >> 32) ^ c[1][half] ^ (uint64_t)k0;
                c[2][half] = (a >> 32) ^ c[3][half] ^ (uint64_t)k1;
                c[1][half] = b;
                c[3][half] = a;
            }
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        for (int j = 0; j < 4; j++) {
            const Four packed = (c[j][0] & UINT64_C(0xFFFFFFFF)) | (c[j][1] << 32);
            std::memcpy(&out.word[j][i], &packed, sizeof packed);  // even block first: little-endian
        }
    }
}

inline float fused(float a, float b, float c) {  // a·b + c, rounded once where the processor can
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float to_float(uint32_t word) {  // rounded once: both halves and the shift are exact
    return (float)(int32_t)(word >> 16) * 65536.0f + (float)(int32_t)(word & 0xFFFF);
}

// The natural logarithm of u = (word + ½) / 2^32: u = 2^n (1 + f), 1 + f in [√½, √2), and log(1 + f) =
// f - f²/2 + f³ p(f) with p fitted for the least relative error (6e-9). Near u = 1 f is taken from the
// complement of the word, as 1 - u would lose the bits that decide how small the radius is.
inline float logarithm(uint32_t word) {
    const bool near_one = word >= 0xB504F334u;  // √½
    const uint32_t u = bits_of(to_float(word) * 0x1p-32f + 0x1p-33f);
    const int32_t n = near_one ? 0 : (int32_t)(u - 0x3F3504F3u) >> 23;  // 0x3F3504F3 is √½
    const float q = to_float(~word) * 0x1p-32f + 0x1p-33f, k = (float)n;
    const float f = near_one ? -q : from_bits(u - ((uint32_t)n << 23)) - 1.0f;
    float p = -0.076344296f;
    p = fused(p, f, 0.1276155f);
    p = fused(p, f, -0.13160194f);
    p = fused(p, f, 0.14201762f);
    p = fused(p, f, -0.16623357f);
    p = fused(p, f, 0.20001227f);
    p = fused(p, f, -0.25000823f);
    p = fused(p, f, 0.33333331f);
    const float tail = fused(-0.5f, f * f, fused(p * f, f * f, k * 1.4286068e-6f));
    return fused(k, 0.693145751953125f, f + tail);  // log 2 = 0.6931457… (exact times k) + 1.4286068e-6
}

// √(-2 log u)·(cos, sin) of the angle 2π·word / 2^32 (Box & Muller 1958). Quarter turns are the word's two top
// bits, so they are taken off exactly, as integers; what is left, within ±π/4, keeps all of its bits.
inline void box_muller(const uint32_t* radius_word, const uint32_t* angle_word, float* z, int counters) {
    for (int i = 0; i < counters; i++) {
        const float radius = __builtin_sqrtf(-2.0f * logarithm(radius_word[i]));
        const uint32_t quarter = (angle_word[i] + 0x20000000u) >> 30;  // 0…3, 4 taken as 0
        const float r = (float)(int32_t)(angle_word[i] - (quarter << 30)) * 1.4629180792671596e-9f, r2 = r * r;
        float s = fused(r2, -1.9517266e-4f, 8.332178e-3f);  // sin r = r + r³ s, |error| < 4e-9
        s = fused(s, r2, -0.16666655f);
        s = fused(s * r2, r, r);
        float c = fused(r2, 2.4438414e-5f, -1.3887368e-3f);  // cos r = 1 - r²/2 + r⁴ c
        c = fused(c, r2, 4.1666646e-2f);
        c = fused(fused(c, r2, -0.5f), r2, 1.0f);
        const float cosine = quarter & 1 ? s : c, sine = quarter & 1 ? c : s;
        z[i] = radius * from_bits(bits_of(cosine) ^ ((quarter + 1) << 30 & 0x80000000u));
        z[COUNTERS + i] = radius * from_bits(bits_of(sine) ^ (quarter << 30 & 0x80000000u));
    }
}

// The normals of elements 4·first … 4·(first + counters) - 1 of one sample, counters <= COUNTERS.
inline void normals(float* z, uint32_t first, int counters, Key key) {
    Words words;
    alignas(32) float pair[2][2 * COUNTERS];  // cosines, then sines
    counters = (counters + LANES - 1) / LANES * LANES;
    philox(words, first, counters, key);
    box_muller(words.word[0], words.word[1], pair[0], counters);
    box_muller(words.word[2], words.word[3], pair[1], counters);
    for (int i = 0; i < counters; i++) {
        z[4 * i + 0] = pair[0][i];
        z[4 * i + 1] = pair[0][COUNTERS + i];
        z[4 * i + 2] = pair[1][i];
        z[4 * i + 3] = pair[1][COUNTERS + i];
    }
}

}  // namespace ddpm
