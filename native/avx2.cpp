// The kernels for x86 with AVX2 and FMA: 8 numbers in a register, 16 registers.
#include "table.h"

#include <immintrin.h>

namespace lessen {
namespace {

struct Avx2 {
    using Register = __m256;
    static constexpr int lanes = 8, columns = 4, groups = 2;
    static constexpr bool squares = false;
    static Register zero() { return _mm256_setzero_ps(); }
    static Register load(const float *from) { return _mm256_loadu_ps(from); }
    static Register load(const Brain *from) {
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
    }
    static Register load(const int8_t *from) {
        const __m128i narrow = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(from));
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(narrow));
    }
    static Register broadcast(float value) { return _mm256_set1_ps(value); }
    static void store(float *to, Register value) { _mm256_storeu_ps(to, value); }
    static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
    static Register larger(Register a, Register b) { return _mm256_max_ps(a, b); }
    static Register multiply(Register a, Register b) { return _mm256_mul_ps(a, b); }
    static float total(Register sums) {
        float sum;
        finish<1>(&sums, nullptr, &sum);
        return sum;
    }
    static float largest(Register numbers) {
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(numbers), _mm256_extractf128_ps(numbers, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
    static Register beginning(Register numbers, int64_t count, Register rest) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i in = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
        return _mm256_blendv_ps(rest, numbers, _mm256_castsi256_ps(in));
    }
    static Register times_power(Register numbers, Register whole) {
        const __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return _mm256_mul_ps(numbers, _mm256_castsi256_ps(_mm256_slli_epi32(power, 23)));
    }
    static void hold(Register &value) { asm("" : "+x"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return _mm256_fmadd_ps(a, b, sum); }

    // out = before + the sums of the lanes of C registers; C is 4 or 1.
    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        static_assert(C == 4 || C == 1);
        constexpr int last = C - 1;  // with one register, its sum comes out four times
        const Register low = _mm256_hadd_ps(sums[0], sums[last / 3]);
        const Register high = _mm256_hadd_ps(sums[last / 3 * 2], sums[last]);
        const Register both = _mm256_hadd_ps(low, high);
        const __m128 line = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
        if constexpr (C == 4)
            _mm_storeu_ps(out, before ? _mm_add_ps(line, _mm_loadu_ps(before)) : line);
        else
            out[0] = _mm_cvtss_f32(line) + (before ? before[0] : 0.0f);
    }
};

struct Whole {
    using Register = __m256i;
    using Bytes = __m256i;
    struct Factor {
        __m256i size, sign;
    };
    static constexpr int bytes = 32, columns = 4, rows = 2, offset = 0;
    static Register zero() { return _mm256_setzero_si256(); }
    static Bytes load(const int8_t *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }
    static Factor factor(const int8_t *from) {
        const __m256i both = load(from);
        return {_mm256_abs_epi8(both), both};
    }
    static void hold(Factor &value) { asm("" : "+x"(value.size), "+x"(value.sign)); }
    static Register add_product(Bytes a, Factor b, Register sum) {
        // Two products of numbers up to 127 fit 16 bits, the first of them without a sign.
        const __m256i two = _mm256_maddubs_epi16(b.size, _mm256_sign_epi8(a, b.sign));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
    }
    static void write_out(uint64_t word, int8_t *to) {
        const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
        const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        for (int i = 0; i < 2; i++) {
            const auto half = static_cast<int32_t>(word >> (32 * i));
            const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(half), spread);
            const __m256i negative = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);  // -1 or 0
            const __m256i signs = _mm256_or_si256(negative, _mm256_set1_epi8(1));
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 32 * i), signs);
        }
    }
    static int32_t total(Register sum) {
        const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        const __m128i pair = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
        return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xB1)));
    }
    static void finish(const Register *sums, int32_t moved, const Scaling &by, float *out) {
        const __m256i both = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
        const __m128i line = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        four(_mm_sub_epi32(line, _mm_set1_epi32(moved)), by, 0, out);
    }
    // Four numbers of the result.
    static void four(__m128i sums, const Scaling &by, int64_t column, float *out) {
        const __m128 factor = _mm_mul_ps(_mm_set1_ps(by.step), _mm_loadu_ps(by.scales + column));
        const __m128 line = _mm_mul_ps(_mm_cvtepi32_ps(sums), factor);
        _mm_storeu_ps(out + column, by.bias ? _mm_add_ps(line, _mm_loadu_ps(by.bias + column)) : line);
    }
};

struct Nibbles {
    using Sums = __m256i;  // of pairs, in 16 bits: eight pairs of products up to 15 * 127 fit
    using Bytes = __m256i;
    static constexpr int rows = 4;
    static Sums no_sums() { return _mm256_setzero_si256(); }
    static Bytes load(const uint8_t *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }
    static Bytes low(Bytes both) { return _mm256_and_si256(both, _mm256_set1_epi8(15)); }
    static Bytes high(Bytes both) { return low(_mm256_srli_epi16(both, 4)); }
    static Sums add_products(Bytes factors, const int8_t *four, Sums sums) {
        int32_t values;
        __builtin_memcpy(&values, four, sizeof values);
        return _mm256_add_epi16(sums, _mm256_maddubs_epi16(factors, _mm256_set1_epi32(values)));
    }
    static __m256 numbers(Sums sums) { return _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1))); }
    static __m256 halves(const uint8_t *from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    }
};

struct Bit {
    struct Counts {
        __m256i low, high;
    };
    static constexpr int rows_of_signs = 2, eights = 1;
    static uint64_t negative(const float *row) {
        uint64_t word = 0;
        for (int i = 0; i < 8; i++) {
            const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(row + 8 * i), _mm256_setzero_ps(), _CMP_LT_OQ);
            word |= static_cast<uint64_t>(_mm256_movemask_ps(below)) << (8 * i);
        }
        return word;
    }
    static Counts no_counts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static Counts eight(Signs words) {
        const auto *halves = reinterpret_cast<const __m256i *>(words);
        return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
    }
    static Counts add_differing(Counts counts, Counts words, uint64_t value) {
        const __m256i all = _mm256_set1_epi64x(static_cast<int64_t>(value));
        counts.low = _mm256_add_epi64(counts.low, ones(_mm256_xor_si256(words.low, all)));
        counts.high = _mm256_add_epi64(counts.high, ones(_mm256_xor_si256(words.high, all)));
        return counts;
    }
    static void store(const Counts &counts, int32_t *to) {
        int64_t wide[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(wide), counts.low);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(wide + 4), counts.high);
        for (int i = 0; i < 8; i++) to[i] = static_cast<int32_t>(wide[i]);
    }
    static void finish(const Counts &counts, int32_t k, const Scaling &by, float *out) {
        Whole::four(left(counts.low, k), by, 0, out);
        Whole::four(left(counts.high, k), by, 4, out);
    }

  private:
    // k minus twice the counts, which fit 32 bits.
    static __m128i left(__m256i counts, int32_t k) {
        const __m256i narrow = _mm256_permutevar8x32_epi32(counts, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
        return _mm_sub_epi32(_mm_set1_epi32(k), _mm_slli_epi32(_mm256_castsi256_si128(narrow), 1));
    }
    // Ones in each 64 bits: looked up for half a byte, then summed.
    static __m256i ones(__m256i bits) {
        const __m256i of_half = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        const __m256i low = _mm256_and_si256(bits, _mm256_set1_epi8(15));
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), _mm256_set1_epi8(15));
        const __m256i bytes = _mm256_add_epi8(_mm256_shuffle_epi8(of_half, low), _mm256_shuffle_epi8(of_half, high));
        return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
    }
};

}  // namespace

const Kernel avx2 = kernel_of<Avx2, Whole, Bit, Nibbles>("avx2");

}  // namespace lessen
