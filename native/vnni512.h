// Products of whole numbers on AVX-512: four neighbours of a row times those of sixteen columns, added up, at once.
//
// Sums of columns stay in lanes, so none are added across a register. One side of the instruction has no sign: weights
// are moved by an offset, which the sum of a row's values takes back.
#pragma once

#include "arranged512.h"
#include "dpbusd512.h"

namespace lessen::vnni {

// Weights of 8 bits, one step of 64 places of k after the other.
class Numbers {
  public:
    static constexpr int32_t offset = 128;

    Numbers(const Int8 &p, int64_t panel) : here(p.weight + panel * PANEL512 * p.depth) {}

    void step() {}
    void next(int64_t j, __m512i (&factors)[2]) {
        const __m512i top = _mm512_set1_epi8(-128);
        factors[0] = _mm512_xor_si512(_mm512_loadu_si512(here), top);
        factors[1] = _mm512_xor_si512(_mm512_loadu_si512(here + BLOCK512), top);
        here += j == 15 ? 64 + BLOCK512 : 64;
    }

  private:
    const int8_t *here;
};

// Signs, as 2 and 0.
class Signs {
  public:
    static constexpr int32_t offset = 1;

    Signs(const Int8 &p, int64_t panel) : signs(p.signs), words(p.depth / 64), eights((p.n + 7) / 8), first(panel * 4) {}

    void step() {
        left = Sixteen512(of(first), of(first + 1)), right = Sixteen512(of(first + 2), of(first + 3));
        word++;
    }
    void next(int64_t j, __m512i (&factors)[2]) {
        factors[0] = left.next(j, table);
        factors[1] = right.next(j, table);
    }

  private:
    // Words of eight columns; beyond the last, of any.
    __m512i of(int64_t eight) const {
        return _mm512_loadu_si512(signs + (least(eight, eights - 1) * words + word) * 8);
    }

    const lessen::Signs signs;
    const int64_t words, eights, first;
    const __m512i table = Sixteen512::table(2, 0);
    Sixteen512 left{table, table}, right{table, table};
    int64_t word = 0;
};

// Sums of R rows with a panel, from registers to the result.
template <int R>
struct Rows {
    Rows<R - 1> above;
    __m512i first = _mm512_setzero_si512(), second = _mm512_setzero_si512();

    // `values` of the first row, four of them; rows are `depth` apart.
    ALWAYS_INLINE void add(const __m512i (&factors)[2], const int8_t *values, int64_t depth) {
        above.add(factors, values, depth);
        int32_t four;
        __builtin_memcpy(&four, values + (R - 1) * depth, sizeof four);
        const __m512i value = _mm512_set1_epi32(four);
        add_products(first, factors[0], value);
        add_products(second, factors[1], value);
    }
    ALWAYS_INLINE void add(const Rows &others) {
        above.add(others.above);
        first = _mm512_add_epi32(first, others.first);
        second = _mm512_add_epi32(second, others.second);
    }
    ALWAYS_INLINE void write(const Int8 &p, int64_t row, int64_t column, int32_t offset, const Columns512 (&by)[2]) const {
        above.write(p, row, column, offset, by);
        const int64_t own = row + R - 1;
        const __m512i moved = _mm512_set1_epi32(offset * p.totals[own]);
        float *out = p.out + own * p.n + column;
        by[0].write(_mm512_sub_epi32(first, moved), p.steps[own], out);
        by[1].write(_mm512_sub_epi32(second, moved), p.steps[own], out + 16);
    }
};

template <>
struct Rows<0> {
    ALWAYS_INLINE void add(const __m512i (&)[2], const int8_t *, int64_t) {}
    ALWAYS_INLINE void add(const Rows &) {}
    ALWAYS_INLINE void write(const Int8 &, int64_t, int64_t, int32_t, const Columns512 (&)[2]) const {}
};

// Weights that are wanted next, fetched while others are multiplied: so many lines of the cache with each 64 places of k.
struct Fetch {
    const int8_t *next;
    int64_t lines;

    void some() {
        for (int64_t i = 0; i < lines; i++, next += 64) _mm_prefetch(reinterpret_cast<const char *>(next), _MM_HINT_T1);
    }
};

// R rows with a panel. Of few rows every other product has sums of its own, not to wait for the one before.
template <class Weights, int R>
inline void tile(const Int8 &p, int64_t panel, int64_t row, Fetch &fetch) {
    constexpr bool few = R < 4;
    Rows<R> sums;
    Rows<few ? R : 0> others;
    const int8_t *values = p.values + row * p.depth;
    Weights weights(p, panel);
    for (int64_t step = 0; step < p.depth; step += 64) {
        weights.step();
        fetch.some();
        for (int64_t j = 0; j < 16; j++) {
            __m512i factors[2];
            weights.next(j, factors);
            sums.add(factors, values + step + 4 * j, p.depth);
            if constexpr (few) {
                weights.next(++j, factors);
                others.add(factors, values + step + 4 * j, p.depth);
            }
        }
    }
    if constexpr (few) sums.add(others);
    const int64_t column = panel * PANEL512;
    sums.write(p, row, column, Weights::offset, {Columns512(p, column), Columns512(p, column + 16)});
}

template <class Weights>
void panels(const Int8 &p, int64_t first, int64_t last) {
    constexpr int64_t lines = STEP512 / 64;
    const int64_t tiles = p.m / 8 + (p.m % 8 > 3) + (p.m % 4 > 1) + p.m % 2;
    for (int64_t panel = first; panel < last; panel++) {
        const bool more = p.weight && (panel + 1) * PANEL512 < p.n;
        Fetch fetch{more ? p.weight + (panel + 1) * PANEL512 * p.depth : nullptr, more ? (lines + tiles - 1) / tiles : 0};
        int64_t row = 0;
        for (; row + 8 <= p.m; row += 8) tile<Weights, 8>(p, panel, row, fetch);
        for (; row + 4 <= p.m; row += 4) tile<Weights, 4>(p, panel, row, fetch);
        for (; row + 2 <= p.m; row += 2) tile<Weights, 2>(p, panel, row, fetch);
        for (; row < p.m; row++) tile<Weights, 1>(p, panel, row, fetch);
    }
}

static void panels8(const Int8 &p, int64_t first, int64_t last, int8_t *) {
    if (p.signs)
        panels<Signs>(p, first, last);
    else
        panels<Numbers>(p, first, last);
}

}  // namespace lessen::vnni
