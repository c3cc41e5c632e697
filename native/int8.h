// A product of whole numbers of 8 bits, written once for AVX2, NEON and scalar code; AVX-512 and AMX have their own.
//
// Weights stay row by row. Sums run along k in the lanes of a register, exactly, so that no order matters;
// floating point begins where they end. Weights of one bit are written out as -1 and 1 for a panel at a time,
// which stays in the first cache.
#pragma once

#include "kernels.h"
#include "rounding.h"

namespace lessen {

// What turns a whole sum into a number of the result.
struct Scaling {
    float step;
    const float *scales, *bias;  // of the first column
};

static inline void scaled(int32_t sum, const Scaling &by, int64_t column, float *out) {
    out[column] = static_cast<float>(sum) * (by.step * by.scales[column]) + (by.bias ? by.bias[column] : 0.0f);
}

static float quantize(const float *row, int64_t k, int64_t depth, int8_t *to, int32_t *total) {
    for (int64_t i = k; i < depth; i++) to[i] = 0;
    return whole_numbers(row, k, to, total);
}

// The signs of row `column` as whole numbers.
template <class V>
inline void write_out(Signs signs, int64_t column, int64_t depth, int8_t *to) {
    Signs word = signs + column / 8 * (depth / 8) + column % 8;
    for (int64_t i = 0; i < depth; i += 64) V::write_out(word[i / 8], to + i);
}

template <class V, int R, int C>
inline void tile8(const Int8 &p, const int8_t *weight, int64_t row, int64_t column) {
    Sums<V, R, C> sums{};
    const int8_t *values = p.values + row * p.depth;
    for (int64_t i = 0; i < p.depth; i += V::bytes) {
        typename V::Bytes value[R];
        for (int r = 0; r < R; r++) value[r] = V::load(values + r * p.depth + i);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) {
            auto factor = V::factor(weight + c * p.depth + i);
            V::hold(factor);  // or compilers load it again for every row
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sums.at[r][c] = V::add_product(value[r], factor, sums.at[r][c]);
        }
    }
    const auto done = sums;
    for (int r = 0; r < R; r++) {
        const Scaling scaling{p.steps[row + r], p.scales + column, p.bias ? p.bias + column : nullptr};
        float *out = p.out + (row + r) * p.n + column;
        const int32_t moved = V::offset * p.totals[row + r];
        if constexpr (C == 1)
            scaled(V::total(done.at[r][0]) - moved, scaling, 0, out);
        else
            V::finish(done.at[r], moved, scaling, out);
    }
}

template <class V, int C>
inline void panel8(const Int8 &p, const int8_t *weight, int64_t column) {
    constexpr int R = V::rows;
    int64_t row = 0;
    for (; row + R <= p.m; row += R) tile8<V, R, C>(p, weight, row, column);
    for (; row < p.m; row++) tile8<V, 1, C>(p, weight, row, column);
}

template <class V>
void panels8(const Int8 &p, int64_t first, int64_t last, int8_t *space) {
    constexpr int C = V::columns;
    for (int64_t panel = first; panel < last; panel++) {
        const int64_t column = panel * C, count = least(C, p.n - column);
        const int8_t *weight = p.signs ? space : p.weight + column * p.depth;
        if (p.signs)
            for (int64_t c = 0; c < count; c++) write_out<V>(p.signs, column + c, p.depth, space + c * p.depth);
        if (count == C)
            panel8<V, C>(p, weight, column);
        else
            for (int64_t c = 0; c < count; c++) panel8<V, 1>(p, weight + c * p.depth, column + c);
    }
}

}  // namespace lessen
