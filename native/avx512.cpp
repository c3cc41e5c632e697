// The kernels for x86 with AVX-512 (F, BW, DQ, VNNI, VPOPCNTDQ): 16 numbers in a register, 32 registers. With AMX,
// products of whole numbers are computed in tiles (amx.cpp), the rest here.
#include "amx.h"
#include "count512.h"
#include "table.h"
#include "transpose512.h"
#include "vnni512.h"

#include <immintrin.h>

namespace lessen {
namespace {

struct Avx512 {
    using Register = __m512;
    static constexpr int lanes = 16, columns = 8, groups = 4;
    static constexpr bool squares = true;
    static Register zero() { return _mm512_setzero_ps(); }
    static Register load(const float *from) { return _mm512_loadu_ps(from); }
    static Register load(const Brain *from) {
        const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
    }
    static Register load(const int8_t *from) {
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(narrow));
    }
    static Register broadcast(float value) { return _mm512_set1_ps(value); }
    static void store(float *to, Register value) { _mm512_storeu_ps(to, value); }
    static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
    static Register larger(Register a, Register b) { return _mm512_max_ps(a, b); }
    static Register multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
    static float total(Register sums) { return _mm512_reduce_add_ps(sums); }
    static float largest(Register numbers) { return _mm512_reduce_max_ps(numbers); }
    // The first `count` lanes, and after them those of `rest`.
    static Register beginning(Register numbers, int64_t count, Register rest) {
        return _mm512_mask_mov_ps(rest, static_cast<__mmask16>((1u << count) - 1), numbers);
    }
    // number * 2^whole
    static Register times_power(Register numbers, Register whole) { return _mm512_scalef_ps(numbers, whole); }
    static void hold(Register &value) { asm("" : "+v"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return _mm512_fmadd_ps(a, b, sum); }

    // A square of 16 by 16, its rows `step` apart, to columns `room` apart; beyond `rows` the last is repeated.
    static void transpose(const float *from, int64_t step, int64_t rows, float *to, int64_t room) {
        __m512i lines[16];
        for (int i = 0; i < 16; i++) lines[i] = _mm512_loadu_si512(from + least(i, rows - 1) * step);
        lessen::transpose(lines);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * room, lines[i]);
    }

    // out = before + the sums of the lanes of C registers.
    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        if constexpr (C == 8) {
            // Pairs of columns are interleaved and added until each lane of 4 holds 4 columns.
            const Register left = fours(sums), right = fours(sums + 4);
            const Register halves = _mm512_add_ps(_mm512_shuffle_f32x4(left, right, 0x44),
                                                  _mm512_shuffle_f32x4(left, right, 0xEE));
            const Register whole = _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, 0xB1));
            const __m256 line = _mm512_castps512_ps256(_mm512_shuffle_f32x4(whole, whole, 0x08));
            _mm256_storeu_ps(out, before ? _mm256_add_ps(line, _mm256_loadu_ps(before)) : line);
        } else {
            for (int c = 0; c < C; c++) out[c] = _mm512_reduce_add_ps(sums[c]) + (before ? before[c] : 0.0f);
        }
    }

  private:
    static Register pair(Register a, Register b) {
        return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    static Register fours(const Register *sums) {
        const __m512d a = _mm512_castps_pd(pair(sums[0], sums[1]));
        const __m512d b = _mm512_castps_pd(pair(sums[2], sums[3]));
        return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
};

struct Whole {
    static void write_out(uint64_t word, int8_t *to) {
        _mm512_storeu_si512(to, _mm512_mask_blend_epi8(word, _mm512_set1_epi8(1), _mm512_set1_epi8(-1)));
    }
};

struct Nibbles {
    using Sums = __m512i;
    using Bytes = __m512i;
    static constexpr int rows = 8;
    static Sums no_sums() { return _mm512_setzero_si512(); }
    static Bytes load(const uint8_t *from) { return _mm512_loadu_si512(from); }
    static Bytes low(Bytes both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
    static Bytes high(Bytes both) { return low(_mm512_srli_epi16(both, 4)); }
    static Sums add_products(Bytes factors, const int8_t *four, Sums sums) {
        int32_t values;
        __builtin_memcpy(&values, four, sizeof values);
        lessen::add_products(sums, factors, _mm512_set1_epi32(values));
        return sums;
    }
    static __m512 numbers(Sums sums) { return _mm512_cvtepi32_ps(sums); }
    static __m512 halves(const uint8_t *from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
    }
};

struct Bit {
    static uint64_t negative(const float *row) {
        uint64_t word = 0;
        for (int i = 0; i < 4; i++) {
            const __mmask16 below = _mm512_cmp_ps_mask(_mm512_loadu_ps(row + 16 * i), _mm512_setzero_ps(), _CMP_LT_OQ);
            word |= static_cast<uint64_t>(below) << (16 * i);
        }
        return word;
    }
};

// A product of signs with float32. Four values have sixteen sums with signs; they fill a register, which the signs
// of sixteen columns then look up: one look-up and one sum for 64 multiplications. Tables of two rows of values fit
// the first cache.
void look_up(const Signed &p, int64_t first, int64_t last, float *tables) {
    constexpr int64_t together = 2, per_word = 16;  // rows; tables of a word of signs
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i high_halves = _mm512_add_epi32(low_halves, _mm512_set1_epi32(1));
    __m512 negative[4];  // -0 where a bit of the lane's number is set
    for (int bit = 0; bit < 4; bit++) {
        const __mmask16 set = _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(1 << bit));
        negative[bit] = _mm512_maskz_mov_ps(set, _mm512_set1_ps(-0.0f));
    }
    const int64_t size = p.words * per_word * 16;
    for (int64_t row = 0; row < p.m; row += together) {
        const int64_t here = least(together, p.m - row);
        for (int64_t r = 0; r < here; r++)
            for (int64_t i = 0; i < p.words * per_word; i++) {
                __m512 sum = _mm512_setzero_ps();
                for (int bit = 0; bit < 4; bit++) {
                    const float value = 4 * i + bit < p.k ? p.values[(row + r) * p.k + 4 * i + bit] : 0.0f;
                    sum = _mm512_add_ps(sum, _mm512_xor_ps(_mm512_set1_ps(value), negative[bit]));
                }
                _mm512_store_ps(tables + r * size + i * 16, sum);
            }
        const float *second = tables + (here - 1) * size;
        for (int64_t eight = first; eight < last; eight += 2) {
            const bool both = eight + 1 < last;
            Signs words = p.signs + eight * p.words * 8, others = both ? words + p.words * 8 : words;
            __m512 sums[together][2] = {{_mm512_setzero_ps(), _mm512_setzero_ps()},
                                        {_mm512_setzero_ps(), _mm512_setzero_ps()}};
            for (int64_t i = 0; i < p.words; i++) {
                const __m512i left = _mm512_loadu_si512(words + i * 8), right = _mm512_loadu_si512(others + i * 8);
                __m512i signs[2] = {_mm512_permutex2var_epi32(left, low_halves, right),
                                    _mm512_permutex2var_epi32(left, high_halves, right)};
                const float *of_word = tables + i * per_word * 16, *of_second = second + i * per_word * 16;
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++)
#pragma GCC unroll 2
                    for (int half = 0; half < 2; half++) {
                        const int64_t table = (half * 8 + j) * 16;
                        const __m512i four = _mm512_srli_epi32(signs[half], 4 * j);  // higher bits are not looked at
                        const __m512 one = _mm512_permutexvar_ps(four, _mm512_load_ps(of_word + table));
                        const __m512 two = _mm512_permutexvar_ps(four, _mm512_load_ps(of_second + table));
                        sums[0][half] = _mm512_add_ps(sums[0][half], one);
                        sums[1][half] = _mm512_add_ps(sums[1][half], two);
                    }
            }
            const int64_t column = eight * 8;
            const auto in = static_cast<__mmask16>((1u << least(both ? 16 : 8, p.n - column)) - 1);
            const __m512 scales = _mm512_maskz_loadu_ps(in, p.scales + column);
            const __m512 bias = p.bias ? _mm512_maskz_loadu_ps(in, p.bias + column) : _mm512_setzero_ps();
            for (int64_t r = 0; r < here; r++) {
                const __m512 sum = _mm512_add_ps(sums[r][0], sums[r][1]);
                const __m512 line = _mm512_add_ps(_mm512_mul_ps(sum, scales), bias);
                _mm512_mask_storeu_ps(p.out + (row + r) * p.n + column, in, line);
            }
        }
    }
}

constexpr Kernel without_tiles(const char *isa) {
    Kernel kernel = rest_of_kernel<Avx512, Bit, Nibbles>(isa);
    kernel.columns8 = PANEL512;
    kernel.panels8 = vnni::panels8;
    kernel.arrange8 = arrange512;
    kernel.eights = eights512;
    kernel.eights_elsewhere = eights512_elsewhere;
    kernel.signed_eights = look_up;
    return kernel;
}

constexpr Kernel with_tiles(const char *isa) {
    Kernel kernel = without_tiles(isa);
    kernel.signs_as_numbers = signs_as_numbers<Bit, Whole>;
    kernel.panels8 = tiles::panels8;
    return kernel;
}

}  // namespace

const Kernel avx512 = without_tiles("avx512");
const Kernel amx = with_tiles("amx");

}  // namespace lessen
