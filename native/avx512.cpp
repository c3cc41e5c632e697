// The kernels for x86 with AVX-512 F and DQ: 16 numbers in a register, 32 registers.
#include "attention.h"
#include "linear.h"

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

}  // namespace

const Kernel avx512 = {"avx512", Avx512::columns, panels<Avx512>, attend<Avx512>, attention_space<Avx512>};

}  // namespace lessen
