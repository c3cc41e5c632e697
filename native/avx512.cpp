// The kernels for x86 with AVX-512 (F, BW, DQ, VNNI, VPOPCNTDQ): 16 numbers in a register, 32 registers. With AMX,
// products of whole numbers are computed in tiles (amx.cpp), the rest here.
#include "amx.h"
#include "attention.h"
#include "binary.h"

#include <immintrin.h>

namespace lessen {
namespace {

struct Avx512 {
    using Register = __m512;
    static constexpr int lanes = 16, columns = 8, groups = 4;
    static Register zero() { return _mm512_setzero_ps(); }
    static Register load(const float *from) { return _mm512_loadu_ps(from); }
    static Register broadcast(float value) { return _mm512_set1_ps(value); }
    static void store(float *to, Register value) { _mm512_storeu_ps(to, value); }
    static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
    static Register larger(Register a, Register b) { return _mm512_max_ps(a, b); }
    static Register multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
    static float total(Register sums) { return _mm512_reduce_add_ps(sums); }
    static void hold(Register &value) { asm("" : "+v"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return _mm512_fmadd_ps(a, b, sum); }

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
    using Register = __m512i;
    using Bytes = __m512i;
    static constexpr int bytes = 64, columns = 8, rows = 3;
    static constexpr int offset = 128;  // the instruction wants one side without a sign: weights are moved by this
    static Register zero() { return _mm512_setzero_si512(); }
    static Bytes load(const int8_t *from) { return _mm512_loadu_si512(from); }
    static Bytes factor(const int8_t *from) { return _mm512_xor_si512(load(from), _mm512_set1_epi8(-128)); }
    static void hold(Bytes &value) { asm("" : "+v"(value)); }
    static Register add_product(Bytes a, Bytes b, Register sum) { return _mm512_dpbusd_epi32(sum, b, a); }
    static void write_out(uint64_t word, int8_t *to) {
        _mm512_storeu_si512(to, _mm512_mask_blend_epi8(word, _mm512_set1_epi8(1), _mm512_set1_epi8(-1)));
    }
    static int32_t total(Register sum) { return _mm512_reduce_add_epi32(sum); }
    static void finish(const Register *sums, int32_t moved, const Scaling &by, float *out) {
        const Register left = fours(sums), right = fours(sums + 4);
        const Register halves = _mm512_add_epi32(_mm512_shuffle_i32x4(left, right, 0x44),
                                                 _mm512_shuffle_i32x4(left, right, 0xEE));
        const Register whole = _mm512_add_epi32(halves, _mm512_shuffle_i32x4(halves, halves, 0xB1));
        const __m256i line = _mm512_castsi512_si256(_mm512_shuffle_i32x4(whole, whole, 0x08));
        eight(_mm256_sub_epi32(line, _mm256_set1_epi32(moved)), by, out);
    }
    // Eight numbers of the result.
    static void eight(__m256i sums, const Scaling &by, float *out) {
        const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(by.step), _mm256_loadu_ps(by.scales));
        const __m256 line = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor);
        _mm256_storeu_ps(out, by.bias ? _mm256_add_ps(line, _mm256_loadu_ps(by.bias)) : line);
    }

  private:
    static Register pair(Register a, Register b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    }
    static Register fours(const Register *sums) {
        const Register a = pair(sums[0], sums[1]), b = pair(sums[2], sums[3]);
        return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    }
};

struct Bit {
    using Counts = __m512i;
    static constexpr int rows_of_signs = 4, eights = 4;
    static uint64_t negative(const float *row) {
        uint64_t word = 0;
        for (int i = 0; i < 4; i++) {
            const __mmask16 below = _mm512_cmp_ps_mask(_mm512_loadu_ps(row + 16 * i), _mm512_setzero_ps(), _CMP_LT_OQ);
            word |= static_cast<uint64_t>(below) << (16 * i);
        }
        return word;
    }
    static Counts no_counts() { return _mm512_setzero_si512(); }
    static Counts eight(Signs words) { return _mm512_loadu_si512(words); }
    static Counts add_differing(Counts counts, Counts words, uint64_t value) {
        const __m512i differing = _mm512_xor_si512(words, _mm512_set1_epi64(static_cast<int64_t>(value)));
        return _mm512_add_epi64(counts, _mm512_popcnt_epi64(differing));
    }
    static void store(const Counts &counts, int32_t *to) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm512_cvtepi64_epi32(counts));
    }
    static void finish(const Counts &counts, int32_t k, const Scaling &by, float *out) {
        const __m256i twice = _mm256_slli_epi32(_mm512_cvtepi64_epi32(counts), 1);
        Whole::eight(_mm256_sub_epi32(_mm256_set1_epi32(k), twice), by, out);
    }
};

}  // namespace

const Kernel avx512 = {"avx512",
                       Avx512::columns,
                       panels<Avx512>,
                       attend<Avx512>,
                       attention_space<Avx512>,
                       quantize<Whole>,
                       to_signs<Bit>,
                       Whole::columns,
                       panels8<Whole>,
                       eights<Bit>,
                       signed_eights<Avx512>,
                       nullptr};

const Kernel amx = {"amx",
                    Avx512::columns,
                    panels<Avx512>,
                    attend<Avx512>,
                    attention_space<Avx512>,
                    quantize<Whole>,
                    to_signs<Bit>,
                    tiles::columns,
                    tiles::panels8,
                    eights<Bit>,
                    signed_eights<Avx512>,
                    tiles::arrange};

}  // namespace lessen
