// The kernels for ARM with NEON: 4 numbers in a register, 32 registers.
#include "attention.h"
#include "linear.h"

#include <arm_neon.h>

namespace lessen {
namespace {

struct Neon {
    using Register = float32x4_t;
    static constexpr int lanes = 4, columns = 8, groups = 4;
    static Register zero() { return vdupq_n_f32(0.0f); }
    static Register load(const float *from) { return vld1q_f32(from); }
    static Register broadcast(float value) { return vdupq_n_f32(value); }
    static void store(float *to, Register value) { vst1q_f32(to, value); }
    static Register add(Register a, Register b) { return vaddq_f32(a, b); }
    static Register larger(Register a, Register b) { return vmaxq_f32(a, b); }
    static Register multiply(Register a, Register b) { return vmulq_f32(a, b); }
    static float total(Register sums) { return vaddvq_f32(sums); }
    static void hold(Register &value) { asm("" : "+w"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return vfmaq_f32(sum, a, b); }

    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        for (int c = 0; c < C; c++) out[c] = vaddvq_f32(sums[c]) + (before ? before[c] : 0.0f);
    }
};

}  // namespace

const Kernel neon = {"neon", Neon::columns, panels<Neon>, attend<Neon>, attention_space<Neon>};

}  // namespace lessen
