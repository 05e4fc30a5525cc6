// The posterior update of one sampler step (sampler.posterior.posterior) on a CPU: one pass over memory, on
// one thread, with its noise read or drawn in registers. Compiled by native_build.py, called by native.py.
//
// Built with -ffp-contract=off, so every operation rounds as PyTorch's separate ones do and the update with
// noise from memory equals the definition bit for bit. `destination` may be any of the inputs, and so may `x0`.
//
// The updates take PyTorch's own tensors (`tensor._cdata`) and look at them here: asked from Python between two
// network calls, when its code has left the caches, the same dozen questions make the update longer.

#include <c10/core/TensorImpl.h>

#include <typeinfo>

#include "normal.h"

namespace {

using ddpm::COUNTERS;
using Tensor = c10::TensorImpl;

struct Row {
    float a, b, c, d, sigma, bound, g;

    Row(const float* from, bool remembers)
        : a(from[0]), b(from[1]), c(from[2]), d(from[3]), sigma(from[4]), bound(from[5]), g(remembers ? from[6] : 0) {}
};

// Whether the kernel can read a tensor as it lies: PyTorch's plain kind on a CPU, none of those derived from it
// (nested, sparse, wrapped), no stand-in without memory, no view that means its negative.
template <typename T>
bool plain(const Tensor* tensor) {
    return typeid(*tensor) == typeid(Tensor) && tensor->is_cpu() && !tensor->is_python_dispatch() &&
           !tensor->is_neg() && tensor->has_storage() && tensor->dtype().Match<T>() && tensor->is_contiguous() &&
           (tensor->numel() == 0 || tensor->data());
}

bool plain_like(const Tensor* tensor, const Tensor* x) { return plain<float>(tensor) && tensor->sizes() == x->sizes(); }

const float* floats(const Tensor* tensor) { return static_cast<const float*>(tensor->data()); }

// Whether all of an update's tensors can be read as they lie; unconditional may be null, before and x0 both.
bool fit(const Tensor* destination, const Tensor* x, const Tensor* conditional, const Tensor* unconditional,
         const Tensor* row, const Tensor* before, const Tensor* x0) {
    return plain<float>(x) && (destination == x || plain_like(destination, x)) && plain_like(conditional, x) &&
           (!unconditional || plain_like(unconditional, x)) && plain<float>(row) && row->numel() == (x0 ? 7 : 6) &&
           (x0 ? before && plain_like(before, x) && plain_like(x0, x) : !before);
}

// No exception of PyTorch's may reach Python's foreign-function interface, which would end the process.
template <typename Work>
bool made(Work work) {
    try {
        return work();
    } catch (...) {
        return false;
    }
}

// The network's output: unconditional is null where there is no guidance.
struct Output {
    const float* conditional;
    const float* unconditional;
    float scale;

    Output from(int64_t offset) const {
        return {conditional + offset, unconditional ? unconditional + offset : nullptr, scale};
    }
};

// The x0 estimates of a trajectory with memory: of the step before, and where this one's go. Null without memory.
struct Memory {
    const float* before;
    float* x0;

    Memory from(int64_t offset) const { return x0 ? Memory{before + offset, x0 + offset} : *this; }
};

// x0 = clamp(a·x - b·out, ±bound); both comparisons are false for NaN, which passes.
inline float estimate(const Row& row, float x, float out) {
    float x0 = row.a * x - row.b * out;
    x0 = -row.bound > x0 ? -row.bound : x0;
    return row.bound < x0 ? row.bound : x0;
}

// One update of `count` elements; z is null where noise has no weight, and `before` is not read where it has none.
void update(float* destination, const float* x, Output out, const float* z, Memory memory, Row row, int64_t count) {
    const float *conditional = out.conditional, *unconditional = out.unconditional, *before = memory.before;
    const float scale = out.scale;
    float* kept = memory.x0;
    const auto store = [&](auto value) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) destination[i] = value(i);
    };
    const auto plain = [=](int64_t i) { return conditional[i]; };
    const auto guided = [=](int64_t i) { return unconditional[i] + scale * (conditional[i] - unconditional[i]); };
    const auto alone = [=](auto out) {
        return [=](int64_t i) { return row.c * estimate(row, x[i], out(i)) + row.d * x[i]; };
    };
    const auto first = [=](auto out) {
        return [=](int64_t i) {
            const float x0 = estimate(row, x[i], out(i));
            kept[i] = x0;
            return row.c * x0 + row.d * x[i];
        };
    };
    const auto remembering = [=](auto out) {
        return [=](int64_t i) {
            const float x0 = estimate(row, x[i], out(i)), mean = row.c * x0 + row.g * before[i];
            kept[i] = x0;
            return mean + row.d * x[i];
        };
    };
    const auto noisy = [=](auto value) { return [=](int64_t i) { return value(i) + row.sigma * z[i]; }; };
    const auto with_noise = [=](auto value) { z ? store(noisy(value)) : store(value); };
    const auto with_memory = [=](auto out) {
        if (!kept) with_noise(alone(out));
        else if (row.g == 0) with_noise(first(out));
        else with_noise(remembering(out));
    };
    unconditional ? with_memory(guided) : with_memory(plain);
}

Memory memory(const Tensor* before, Tensor* x0) {
    return x0 ? Memory{floats(before), static_cast<float*>(x0->mutable_data())} : Memory{};
}

// Runs over each sample in chunks of at most 4·COUNTERS elements: work(sample, position, count).
template <typename Work>
void chunks(int64_t batch, int64_t elements, Work work) {
    for (int64_t sample = 0; sample < batch; sample++)
        for (int64_t start = 0; start < elements; start += 4 * COUNTERS)
            work(sample, start, elements - start < 4 * COUNTERS ? elements - start : 4 * COUNTERS);
}

ddpm::Key key(uint64_t seed, const int64_t* ids, int64_t sample, uint32_t step) {
    return {seed, (uint64_t)ids[sample], step};
}

}  // namespace

extern "C" {

// Both updates return whether they were made: where not, nothing was touched, and a tensor must be converted first.

bool posterior(Tensor* destination, const Tensor* x, const Tensor* conditional, const Tensor* unconditional,
               float scale, const Tensor* row, const Tensor* before, Tensor* x0, const Tensor* z) {
    return made([=] {
        if (!fit(destination, x, conditional, unconditional, row, before, x0) || !plain_like(z, x)) return false;
        const Row values(floats(row), x0);
        update(static_cast<float*>(destination->mutable_data()), floats(x),
               {floats(conditional), unconditional ? floats(unconditional) : nullptr, scale},
               values.sigma == 0 ? nullptr : floats(z), memory(before, x0), values, x->numel());
        return true;
    });
}

bool posterior_drawn(Tensor* destination, const Tensor* x, const Tensor* conditional, const Tensor* unconditional,
                     float scale, const Tensor* row, const Tensor* before, Tensor* x0, const Tensor* sample_ids,
                     uint64_t seed, uint32_t step) {
    return made([=] {
        if (!fit(destination, x, conditional, unconditional, row, before, x0) || x->dim() == 0) return false;
        const int64_t batch = x->sizes()[0], elements = x->numel() / (batch ? batch : 1);
        if (!plain<int64_t>(sample_ids) || sample_ids->dim() != 1 || sample_ids->numel() != batch) return false;
        const Row values(floats(row), x0);
        const Output out{floats(conditional), unconditional ? floats(unconditional) : nullptr, scale};
        const Memory kept = memory(before, x0);
        auto* to = static_cast<float*>(destination->mutable_data());
        const float* from = floats(x);
        const auto* ids = static_cast<const int64_t*>(sample_ids->data());
        if (values.sigma == 0) {
            update(to, from, out, nullptr, kept, values, x->numel());
            return true;
        }
        chunks(batch, elements, [&](int64_t sample, int64_t start, int64_t count) {
            alignas(32) float z[4 * COUNTERS];
            ddpm::normals(z, (uint32_t)(start / 4), (int)((count + 3) / 4), key(seed, ids, sample, step));
            const int64_t at = sample * elements + start;
            update(to + at, from + at, out.from(at), z, kept.from(at), values, count);
        });
        return true;
    });
}

void normal(float* destination, const int64_t* ids, int64_t batch, int64_t elements, uint64_t seed,
            uint32_t step) {
    chunks(batch, elements, [&](int64_t sample, int64_t start, int64_t count) {
        alignas(32) float z[4 * COUNTERS];
        ddpm::normals(z, (uint32_t)(start / 4), (int)((count + 3) / 4), key(seed, ids, sample, step));
        std::memcpy(destination + sample * elements + start, z, count * sizeof(float));
    });
}

// The words themselves, [batch, blocks, 4], for comparing bit by bit.
void words(uint32_t* destination, const int64_t* ids, int64_t batch, int64_t blocks, uint64_t seed,
           uint32_t step) {
    chunks(batch, 4 * blocks, [&](int64_t sample, int64_t start, int64_t count) {
        ddpm::Words drawn;
        ddpm::philox(drawn, (uint32_t)(start / 4), (int)(count / 4), key(seed, ids, sample, step));
        for (int64_t i = 0; i < count; i++)
            destination[sample * 4 * blocks + start + i] = drawn.word[i % 4][i / 4];
    });
}
}
