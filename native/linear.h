// A product of few rows with a matrix, written once for every instruction set.
//
// Weights stay in the row-major layout they were trained in, float32, bfloat16 or 8 bits: no copy, no reordering. With
// few rows the cost is reading them, so they are read once: a panel of `V::columns` weight rows is multiplied with all
// rows, three at a time, while the next panel is fetched. Sums run along k in vector lanes, in an order that
// depends neither on the number of rows nor on the number of threads.
#pragma once

#include "kernels.h"

namespace lessen {

constexpr int ROWS = 3;          // rows multiplied at a time: with 8 columns, 24 sums stay in registers
constexpr int64_t DEPTH = 1024;  // of k at a time: a panel of so much fits the first cache

// The number a bfloat16 stands for: the upper half of a float32.
static inline float widened(Brain number) {
    const uint32_t bits = static_cast<uint32_t>(number) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
static inline float widened(float number) { return number; }
static inline float widened(int8_t number) { return number; }

// C weight rows, `apart` from one another: `depth` of k from `start`.
template <class T>
struct Panel {
    const T *weight;
    int64_t apart, column, start, depth;
};

template <class V, class T, int R, int C, bool FETCH>
inline void tile(const Linear &p, const Panel<T> &panel, int64_t row, const void *next, int from, int to) {
    Sums<V, R, C> sums{};
    const float *values = p.values + row * p.k + panel.start;
    const T *weight = panel.weight;
    const int64_t depth = panel.depth, whole = depth / V::lanes * V::lanes;
    constexpr int64_t line = 64 / sizeof(T);  // numbers of a line of the cache
    for (int64_t i = 0; i < whole; i += V::lanes) {
        typename V::Register value[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) value[r] = V::load(values + r * p.k + i);
        if (FETCH && i % line < V::lanes)
            for (int c = from; c < to; c++) __builtin_prefetch(static_cast<const T *>(next) + c * p.k + i, 0, 2);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) {
            auto factor = V::load(weight + c * panel.apart + i);
            V::hold(factor);  // or compilers load it again for every row
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sums.at[r][c] = V::add_product(value[r], factor, sums.at[r][c]);
        }
    }
    const auto done = sums;
    for (int r = 0; r < R; r++) {
        float *out = p.out + (row + r) * p.n + panel.column;
        const float *bias = p.bias && !p.scales ? p.bias + panel.column : nullptr;
        V::template finish<C>(done.at[r], panel.start ? out : bias, out);
        if (whole < depth)
            for (int c = 0; c < C; c++)
                for (int64_t i = whole; i < depth; i++)
                    out[c] += values[r * p.k + i] * widened(weight[c * panel.apart + i]);
    }
}

template <class T>
using Tile = void (*)(const Linear &, const Panel<T> &, int64_t, const void *, int, int);

template <class V, class T, int C, bool FETCH>
inline Tile<T> some(int64_t rows) {
    return rows == 3 ? tile<V, T, 3, C, FETCH> : rows == 2 ? tile<V, T, 2, C, FETCH> : tile<V, T, 1, C, FETCH>;
}

// All rows with a panel of C weight rows; meanwhile the C rows at `next` are fetched.
template <class V, class T, int C>
inline void multiplied(const Linear &p, const Panel<T> &panel, const void *next) {
    const int64_t tiles = (p.m + ROWS - 1) / ROWS;
    int64_t row = 0;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t end = p.m * (t + 1) / tiles;
        const int from = next ? static_cast<int>(C * t / tiles) : 0;
        const int to = next ? static_cast<int>(C * (t + 1) / tiles) : 0;
        const auto go = from < to ? some<V, T, C, true>(end - row) : some<V, T, C, false>(end - row);
        go(p, panel, row, next, from, to);
        row = end;
    }
}

// The same; where many rows follow, numbers of 8 bits become float32 once for all of them.
template <class V, class T, int C>
inline void panel(const Linear &p, int64_t column, int64_t start, int64_t depth, const T *next) {
    const T *weight = static_cast<const T *>(p.weight) + column * p.k + start;
    if constexpr (sizeof(T) == 1) {
        if (p.m > ROWS) {
            alignas(64) float wide[C * DEPTH];
            for (int64_t c = 0; c < C; c++) {
                int64_t i = 0;
                for (; i + V::lanes <= depth; i += V::lanes)
                    V::store(wide + c * DEPTH + i, V::load(weight + c * p.k + i));
                for (; i < depth; i++) wide[c * DEPTH + i] = weight[c * p.k + i];
            }
            multiplied<V, float, C>(p, {wide, DEPTH, column, start, depth}, nullptr);
            return;
        }
    }
    multiplied<V, T, C>(p, {weight, p.k, column, start, depth}, next);
}

// Whole sums times the scales of their columns.
static inline void scale_columns(const Linear &p, int64_t first, int64_t last) {
    for (int64_t row = 0; row < p.m; row++)
        for (int64_t column = first; column < last; column++) {
            float &out = p.out[row * p.n + column];
            out = out * p.scales[column] + (p.bias ? p.bias[column] : 0.0f);
        }
}

template <class V, class T = float>
void panels(const Linear &p, int64_t first, int64_t last, int64_t after) {
    constexpr int C = V::columns;
    const int64_t whole = p.n / C;
    const int64_t blocks = (p.k + DEPTH - 1) / DEPTH;
    const int64_t step = ((p.k + blocks - 1) / blocks + V::lanes - 1) / V::lanes * V::lanes;
    for (int64_t start = 0; start < p.k; start += step) {
        const int64_t depth = least(step, p.k - start);
        const bool more = start + step < p.k;
        for (int64_t each = first; each < last; each++) {
            const int64_t end = least(p.n, (each + 1) * C);
            if (each >= whole) {  // the columns left over, one at a time
                for (int64_t column = each * C; column < p.n; column++)
                    panel<V, T, 1>(p, column, start, depth, nullptr);
                if (p.scales && !more) scale_columns(p, each * C, end);
                continue;
            }
            int64_t follows = each + 1, at = start;
            if (follows == last) follows = more ? first : after, at = more ? start + step : 0;
            const T *weight = static_cast<const T *>(p.weight);
            panel<V, T, C>(p, each * C, start, depth, follows < whole ? weight + follows * C * p.k + at : nullptr);
            if (p.scales && !more) scale_columns(p, each * C, end);
        }
    }
}

}  // namespace lessen
