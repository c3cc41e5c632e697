#include "linear.h"

#include <arm_neon.h>

namespace lessen {
namespace {

struct Neon {
    using Register = float32x4_t;
    static constexpr int lanes = 4, columns = 8;
    static Register zero() { return vdupq_n_f32(0.0f); }
    static Register load(const float *from) { return vld1q_f32(from); }
    static void hold(Register &value) { asm("" : "+w"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return vfmaq_f32(sum, a, b); }

    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        for (int c = 0; c < C; c++) out[c] = vaddvq_f32(sums[c]) + (before ? before[c] : 0.0f);
    }
};

}  // namespace

const Kernel neon = {"neon", Neon::columns, panels<Neon>};

}  // namespace lessen
