// Attention of rows as callers describe it.
#pragma once

#include <cstdint>

#include "lessen.h"

namespace lessen {

// A bias of scores as a head reads it: at no distance, and how far apart heads lie.
struct Near {
    const float *bias = nullptr;
    int64_t apart = 0;
    const int64_t *of_bias = nullptr;

    Near(const lessen_bias *by, const int64_t *of_bias) : of_bias(of_bias) {
        if (by) bias = by->by_distance + by->longest - 1, apart = 2 * by->longest - 1;
    }
    const float *of(int64_t head) const { return bias ? bias + (of_bias ? of_bias[head] : head) * apart : nullptr; }
};

// lessen_attention_f32; heads of a bias are those of `of_bias`, or if that is null the attention's.
void attention_of(const lessen_heads &heads, const int64_t *lengths, int64_t rows, const lessen_bias *bias,
                  const int64_t *of_bias, float *out, float *received, int64_t last, int threads);

}  // namespace lessen
