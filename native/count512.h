// A product of signs with signs on AVX-512: bits that differ, counted two words at a time.
//
// What that costs, in operations on 512 bits. Processors have two ports for them, and Intel's count bits on one of
// these only: a count a cycle, 512 products of signs, is the limit of whatever counts every word. A plain loop takes
// an XOR, a count and an addition for each word; 3 operations for two ports cannot pass 2/3 of that limit. A carry-save
// adder takes what was left over before and two words, and gives what is left over now and a carry, which counts
// double; only the carry is counted. With two XORs before it, a sum and a majority are 4 operations, with count and
// addition 6 for two words: nothing is won, nor at any level above, where 2 operations spare 2. But VPTERNLOG has
// three inputs, and takes the XORs in:
//     first = left ^ w1 ^ v1
//     both  = first ^ w2 ^ v2               left over now
//     carry = first ? ~both : left          the majority of left, w1 ^ v1 and w2 ^ v2
// 3 operations, 5 with count and addition: 1.25 cycles for 512 products, 4/5 of the limit. Values come from memory
// within the operation, broadcast by the load.
//
// Zen 5 counts on two ports and adds on four, but three inputs are more than it reads at that rate: there the plain loop
// is the faster, 3 operations for four ports, 2/3 of the limit again.
#pragma once

#include "binary.h"

#include <cpuid.h>
#include <immintrin.h>

namespace lessen {

// Differing bits of eight columns with one row: left + 2 * twos, the bits of left counted at the end.
struct Carried {
    __m512i left = _mm512_setzero_si512(), twos = _mm512_setzero_si512();

    ALWAYS_INLINE void add(__m512i words, __m512i value) {
        const __m512i differing = _mm512_xor_si512(words, value);
        twos = _mm512_add_epi64(twos, _mm512_popcnt_epi64(_mm512_and_si512(left, differing)));
        left = _mm512_xor_si512(left, differing);
    }
    ALWAYS_INLINE void add(__m512i words, __m512i value, __m512i others, __m512i other) {
        constexpr int sum = 0x96, chosen = 0x3A;
        const __m512i first = _mm512_ternarylogic_epi64(words, left, value, sum);
        const __m512i both = _mm512_ternarylogic_epi64(first, others, other, sum);
        twos = _mm512_add_epi64(twos, _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(first, both, left, chosen)));
        left = both;
    }
    ALWAYS_INLINE __m512i total() const {
        return _mm512_add_epi64(_mm512_add_epi64(twos, twos), _mm512_popcnt_epi64(left));
    }
};

// The same, every word counted.
struct Counted {
    __m512i sum = _mm512_setzero_si512();

    ALWAYS_INLINE void add(__m512i words, __m512i value) {
        __m512i bits;
        asm("vpxorq %1, %2, %0\n\tvpopcntq %0, %0" : "=&v"(bits) : "v"(words), "v"(value));  // GCC 12 would copy sums
        asm("vpaddq %1, %0, %0" : "+v"(sum) : "v"(bits));
    }
    ALWAYS_INLINE void add(__m512i words, __m512i value, __m512i others, __m512i other) {
        add(words, value);
        add(others, other);
    }
    ALWAYS_INLINE __m512i total() const { return sum; }
};

// Where sixteen columns of a result go, rounded as tiles round theirs (Columns512).
struct Written512 {
    __mmask16 here;
    __m512 scales, bias;
    __m512i k;

    Written512(const Binary &p, int64_t column, int64_t count) : k(_mm512_set1_epi32(static_cast<int32_t>(p.k))) {
        here = static_cast<__mmask16>((1u << least(count, p.n - column)) - 1);
        scales = _mm512_maskz_loadu_ps(here, p.scales + column);
        bias = p.bias ? _mm512_maskz_loadu_ps(here, p.bias + column) : _mm512_setzero_ps();
    }
    // Of the bits that differ.
    ALWAYS_INLINE void write(__m512i differing, float step, float *out) const {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(k, _mm512_slli_epi32(differing, 1)));
        const __m512 line = _mm512_add_ps(_mm512_mul_ps(sum, _mm512_mul_ps(_mm512_set1_ps(step), scales)), bias);
        _mm512_mask_storeu_ps(out, here, line);
    }
};

// R rows with sixteen columns, or with the first eight of them. Not arrays: GCC 12 keeps those in memory, and stores
// each count after every addition.
template <class Counts, int R, bool BOTH>
struct Rows512 {
    Rows512<Counts, R - 1, BOTH> above;
    Counts ones, others;

    // A word of each of the columns; `values` of the first row, rows are `apart`.
    ALWAYS_INLINE void add(const __m512i (&words)[2], const uint64_t *values, int64_t apart) {
        above.add(words, values, apart);
        const __m512i value = one(values + (R - 1) * apart);
        ones.add(words[0], value);
        if constexpr (BOTH) others.add(words[1], value);
    }
    // Two words.
    ALWAYS_INLINE void add(const __m512i (&words)[2], const __m512i (&next)[2], const uint64_t *values, int64_t apart) {
        above.add(words, next, values, apart);
        const __m512i value = one(values + (R - 1) * apart), other = one(values + (R - 1) * apart + 1);
        ones.add(words[0], value, next[0], other);
        if constexpr (BOTH) others.add(words[1], value, next[1], other);
    }
    ALWAYS_INLINE void write(const Binary &p, int64_t row, int64_t column, const Written512 &by) const {
        above.write(p, row, column, by);
        const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const int64_t own = row + R - 1;
        const __m512i differing = _mm512_permutex2var_epi32(ones.total(), low_halves, (BOTH ? others : ones).total());
        by.write(differing, p.steps[own], p.out + own * p.n + column);
    }

  private:
    ALWAYS_INLINE static __m512i one(const uint64_t *value) { return _mm512_set1_epi64(static_cast<int64_t>(*value)); }
};

template <class Counts, bool BOTH>
struct Rows512<Counts, 0, BOTH> {
    ALWAYS_INLINE void add(const __m512i (&)[2], const uint64_t *, int64_t) {}
    ALWAYS_INLINE void add(const __m512i (&)[2], const __m512i (&)[2], const uint64_t *, int64_t) {}
    ALWAYS_INLINE void write(const Binary &, int64_t, int64_t, const Written512 &) const {}
};

template <class Counts, int R, bool BOTH>
inline void count512(const Binary &p, int64_t row, int64_t eight) {
    constexpr int E = BOTH ? 2 : 1;
    Rows512<Counts, R, BOTH> rows;
    const uint64_t *values = p.values + row * p.words;
    Signs signs = p.signs + eight * p.words * 8, second = signs + (E - 1) * p.words * 8;
    int64_t i = 0;
    if (p.words % 2) {
        rows.add({_mm512_loadu_si512(signs), _mm512_loadu_si512(second)}, values, p.words);
        i = 1;
    }
    for (; i < p.words; i += 2)
        rows.add({_mm512_loadu_si512(signs + 8 * i), _mm512_loadu_si512(second + 8 * i)},
                 {_mm512_loadu_si512(signs + 8 * i + 8), _mm512_loadu_si512(second + 8 * i + 8)}, values + i, p.words);
    rows.write(p, row, eight * 8, Written512(p, eight * 8, 8 * E));
}

template <class Counts, bool BOTH>
inline void counts512(const Binary &p, int64_t row, int64_t end, int64_t eight) {
    for (; row + 4 <= end; row += 4) count512<Counts, 4, BOTH>(p, row, eight);
    for (; row < end; row++) count512<Counts, 1, BOTH>(p, row, eight);
}

// A few rows with all columns before the next rows: what is written to lies side by side. Rows of a result are often
// some pages apart, and would drive one another out of the first cache.
template <class Counts>
inline void all_eights512(const Binary &p, int64_t first, int64_t last) {
    constexpr int64_t together = 12;
    for (int64_t row = 0; row < p.m; row += together) {
        const int64_t end = least(row + together, p.m);
        int64_t eight = first;
        for (; eight + 2 <= last; eight += 2) counts512<Counts, true>(p, row, end, eight);
        if (eight < last) counts512<Counts, false>(p, row, end, eight);
    }
}

static inline bool is_zen5() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &a, &b, &c, &d)) return false;
    const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    return family == 0x1A;
}

template <bool HERE>
inline void eights512_as(const Binary &p, int64_t first, int64_t last) {
    static const bool counted = is_zen5() == HERE;
    (counted ? all_eights512<Counted> : all_eights512<Carried>)(p, first, last);
}

static inline void eights512(const Binary &p, int64_t first, int64_t last) { eights512_as<true>(p, first, last); }
static inline void eights512_elsewhere(const Binary &p, int64_t first, int64_t last) {
    eights512_as<false>(p, first, last);
}

}  // namespace lessen
