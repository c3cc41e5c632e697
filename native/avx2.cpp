// The kernels for x86 with AVX2 and FMA: 8 numbers in a register, 16 registers.
#include "attention.h"
#include "linear.h"

#include <immintrin.h>

namespace lessen {
namespace {

struct Avx2 {
    using Register = __m256;
    static constexpr int lanes = 8, columns = 4, groups = 2;
    static Register zero() { return _mm256_setzero_ps(); }
    static Register load(const float *from) { return _mm256_loadu_ps(from); }
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

}  // namespace

const Kernel avx2 = {"avx2", Avx2::columns, panels<Avx2>, attend<Avx2>, attention_space<Avx2>};

}  // namespace lessen
