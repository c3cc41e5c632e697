// Products with weights of one bit, written once for every instruction set.
//
// With activations of one bit too, a product is K - 2 * (bits that differ). Eight rows of weights lie side by
// side, so that a word of the activations meets all of them at once and no sum runs across lanes. With float32
// activations the signs of eight rows are written out as -1 and 1, which the float kernel then multiplies: less
// memory is read, and as much is computed.
#pragma once

#include "int8.h"
#include "linear.h"

namespace lessen {

// The mean of the absolute values, summed in an order that compilers can vectorize.
static inline float mean_size(const float *row, int64_t k) {
    float sums[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= k; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += __builtin_fabsf(row[i + j]);
    float sum = 0;
    for (; i < k; i++) sum += __builtin_fabsf(row[i]);
    for (float each : sums) sum += each;
    return sum / static_cast<float>(k);
}

template <class V>
float to_signs(const float *row, int64_t k, uint64_t *to) {
    int64_t i = 0;
    for (; i + 64 <= k; i += 64) *to++ = V::negative(row + i);
    if (i < k) {
        uint64_t word = 0;
        for (int64_t j = 0; i + j < k; j++) word |= static_cast<uint64_t>(row[i + j] < 0) << j;
        *to = word;
    }
    return mean_size(row, k);
}

// The same as -1 and 1, 0 beyond k, where whole numbers are multiplied faster than bits are counted.
template <class V, class W>
float signs_as_numbers(const float *row, int64_t k, int64_t depth, int8_t *to) {
    int64_t i = 0;
    for (; i + 64 <= k; i += 64) W::write_out(V::negative(row + i), to + i);
    for (; i < depth; i++) to[i] = i < k ? (row[i] < 0 ? -1 : 1) : 0;
    return mean_size(row, k);
}

template <class V, int R, int E>
inline void count(const Binary &p, int64_t row, int64_t eight) {
    typename V::Counts counts[R][E];
    for (auto &line : counts)
        for (auto &each : line) each = V::no_counts();
    const uint64_t *values = p.values + row * p.words;
    Signs signs = p.signs + eight * p.words * 8;
    for (int64_t i = 0; i < p.words; i++) {
#pragma GCC unroll 8
        for (int e = 0; e < E; e++) {
            const auto word = V::eight(signs + (e * p.words + i) * 8);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) counts[r][e] = V::add_differing(counts[r][e], word, values[r * p.words + i]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int e = 0; e < E; e++) {
            const int64_t column = (eight + e) * 8;
            const Scaling scaling{p.steps[row + r], p.scales + column, p.bias ? p.bias + column : nullptr};
            float *out = p.out + (row + r) * p.n + column;
            if (column + 8 <= p.n) {
                V::finish(counts[r][e], static_cast<int32_t>(p.k), scaling, out);
                continue;
            }
            int32_t differ[8];
            V::store(counts[r][e], differ);
            for (int64_t c = 0; column + c < p.n; c++)
                scaled(static_cast<int32_t>(p.k) - 2 * differ[c], scaling, c, out);
        }
}

template <class V, int E>
inline void counts(const Binary &p, int64_t eight) {
    constexpr int R = V::rows_of_signs;
    int64_t row = 0;
    for (; row + R <= p.m; row += R) count<V, R, E>(p, row, eight);
    for (; row < p.m; row++) count<V, 1, E>(p, row, eight);
}

template <class V>
void eights(const Binary &p, int64_t first, int64_t last) {
    constexpr int E = V::eights;
    int64_t eight = first;
    for (; eight + E <= last; eight += E) counts<V, E>(p, eight);
    for (; eight < last; eight++) counts<V, 1>(p, eight);
}

template <class V>
void signed_eights(const Signed &p, int64_t first, int64_t last, float *space) {
    constexpr int C = V::columns;
    for (int64_t eight = first; eight < last; eight++) {
        for (int64_t half = 0; half < 8; half += C) {
            const int64_t column = eight * 8 + half, here = least(C, p.n - column);
            if (here <= 0) break;
            for (int64_t c = 0; c < here; c++) {
                Signs word = p.signs + eight * p.words * 8 + half + c;
                float *to = space + c * p.k;
                for (int64_t i = 0; i < p.k; i++)
                    to[i] = word[i / 64 * 8] >> (i % 64) & 1 ? -1.0f : 1.0f;
            }
            const Linear product{p.values, space, nullptr, p.out + column, p.m, p.n, p.k};
            for (int64_t start = 0; start < p.k; start += DEPTH) {
                const int64_t depth = least(DEPTH, p.k - start);
                if (here == C)
                    panel<V, float, C>(product, 0, start, depth, nullptr);
                else
                    for (int64_t c = 0; c < here; c++) panel<V, float, 1>(product, c, start, depth, nullptr);
            }
            for (int64_t row = 0; row < p.m; row++)
                for (int64_t c = column; c < column + here; c++) {
                    float &out = p.out[row * p.n + c];
                    out = out * p.scales[c] + (p.bias ? p.bias[c] : 0.0f);
                }
        }
    }
}

}  // namespace lessen
