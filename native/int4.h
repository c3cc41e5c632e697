// A product with weights of 4 bits, in groups of 32 columns of a row that share a scale and a minimum (GGUF's Q4_1):
//     weight = scale * q + minimum, q from 0 to 15.
// Activations become whole numbers from -127 to 127 times a step of their group, so that a group is one exact whole
// sum, and the minimum goes with the sum of its activations:
//     out += scale * step * sum(q * value) + minimum * step * sum(value), in float32.
//
// Sixteen weight rows lie side by side, group after group: four lines of the cache with their numbers, and one with
// their scales and minimums. So a product of one row of activations reads one long stream, every byte once, and each
// lane of a register sums a row of its own: there is nothing to add up across lanes.
#pragma once

#include "kernels.h"
#include "rounding.h"

namespace lessen {

constexpr int64_t AHEAD = 8 * BLOCK;  // bytes fetched before they are wanted

// The number a float16 stands for; there are no infinite ones among scales.
static inline float half(uint16_t number) {
    const uint32_t bits = static_cast<uint32_t>(number & 0x7FFF) << 13;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    return number & 0x8000 ? -value : value;
}

// Activations of a group as whole_numbers makes them; the number of them being known, other loops are faster.
static inline float quantize_group(const float *row, int8_t *to, float *total) {
    const float largest = largest_size(row, GROUP), inverse = largest > SMALLEST ? 127.0f / largest : 0.0f;
    int32_t whole[GROUP];
    uint32_t sum = 0;  // as in whole_numbers
    for (int64_t i = 0; i < GROUP; i++) sum += static_cast<uint32_t>(whole[i] = rounded(row[i] * inverse));
    for (int64_t i = 0; i < GROUP; i++) to[i] = static_cast<int8_t>(whole[i]);
    const float step = step_of(largest);
    *total = step * static_cast<float>(static_cast<int32_t>(sum));
    return step;
}

static void quantize_groups(const float *row, int64_t k, int8_t *to, float *steps, float *totals) {
    int64_t group = 0;
    for (; (group + 1) * GROUP <= k; group++)
        steps[group] = quantize_group(row + group * GROUP, to + group * GROUP, totals + group);
    if (group * GROUP < k) {
        float rest[GROUP] = {0};
        for (int64_t i = group * GROUP; i < k; i++) rest[i - group * GROUP] = row[i];
        steps[group] = quantize_group(rest, to + group * GROUP, totals + group);
    }
}

// R rows of activations with sixteen weight rows from `column` on, as many at a time as a register has lanes.
template <class V, class N, int R, bool FETCH>
inline void tile4(const Fours &p, const uint8_t *block, int64_t row, int64_t column) {
    const int8_t *values = p.values + row * p.groups * GROUP;
    const float *steps = p.steps + row * p.groups, *totals = p.totals + row * p.groups;
    for (int64_t lane = 0; lane < SIXTEEN && column + lane < p.n; lane += V::lanes) {
        typename V::Register sums[R];
        for (auto &sum : sums) sum = V::zero();
        for (int64_t g = 0; g < p.groups; g++) {
            const uint8_t *from = block + g * BLOCK;
            typename N::Sums whole[R];
            for (auto &sum : whole) sum = N::no_sums();
#pragma GCC unroll 4
            for (int64_t j = 0; j < 4; j++) {
                if (FETCH) __builtin_prefetch(from + AHEAD + j * LINE, 0, 2);
                const auto both = N::load(from + j * LINE + 4 * lane);
                const auto low = N::low(both), high = N::high(both);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const int8_t *eight = values + (r * p.groups + g) * GROUP + 8 * j;
                    whole[r] = N::add_products(low, eight, whole[r]);
                    whole[r] = N::add_products(high, eight + 4, whole[r]);
                }
            }
            if (FETCH) __builtin_prefetch(from + AHEAD + 4 * LINE, 0, 2);
            const auto scale = N::halves(from + 4 * LINE + 2 * lane);
            const auto minimum = N::halves(from + 4 * LINE + 2 * (SIXTEEN + lane));
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                const auto factor = V::multiply(scale, V::broadcast(steps[r * p.groups + g]));
                sums[r] = V::add_product(factor, N::numbers(whole[r]), sums[r]);
                sums[r] = V::add_product(minimum, V::broadcast(totals[r * p.groups + g]), sums[r]);
            }
        }
        const int64_t first = column + lane, count = least(V::lanes, p.n - first);
        for (int r = 0; r < R; r++) {
            float line[SIXTEEN], *out = p.out + (row + r) * p.n + first;
            V::store(line, sums[r]);
            for (int64_t c = 0; c < count; c++) out[c] = line[c] + (p.bias ? p.bias[first + c] : 0.0f);
        }
    }
}

// Sixteens first..last of a product.
template <class V, class N>
void sixteens(const Fours &p, int64_t first, int64_t last) {
    constexpr int R = N::rows;
    for (int64_t each = first; each < last; each++) {
        const uint8_t *block = p.blocks + each * p.groups * BLOCK;
        const int64_t column = each * SIXTEEN;
        int64_t row = 0;
        for (; row + R <= p.m; row += R) tile4<V, N, R, false>(p, block, row, column);
        for (; row + 2 <= p.m; row += 2) tile4<V, N, 2, false>(p, block, row, column);
        if (row < p.m) tile4<V, N, 1, true>(p, block, row, column);
    }
}

}  // namespace lessen
