// The kernels for any processor: a "register" is one number. The reference the others are checked against.
#include "attention.h"
#include "linear.h"

namespace lessen {
namespace {

struct Scalar {
    using Register = float;
    static constexpr int lanes = 1, columns = 4, groups = 4;
    static Register zero() { return 0.0f; }
    static Register load(const float *from) { return *from; }
    static Register broadcast(float value) { return value; }
    static void store(float *to, Register value) { *to = value; }
    static Register add(Register a, Register b) { return a + b; }
    static Register larger(Register a, Register b) { return a < b ? b : a; }
    static Register multiply(Register a, Register b) { return a * b; }
    static float total(Register sums) { return sums; }
    static void hold(Register &) {}
    static Register add_product(Register a, Register b, Register sum) { return sum + a * b; }

    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        for (int c = 0; c < C; c++) out[c] = sums[c] + (before ? before[c] : 0.0f);
    }
};

}  // namespace

const Kernel scalar = {"scalar", Scalar::columns, panels<Scalar>, attend<Scalar>, attention_space<Scalar>};

}  // namespace lessen
