// Functions of one number, plain enough for compilers to put many of them side by side in registers: no branches, no
// divisions, which take longer than everything else in them.
#pragma once

#include "rounding.h"

namespace lessen {

// a * b + c, rounded once where the processor can: left to compilers (-ffp-contract), it would depend on the place of
// a number in its row.
static inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// 1 / x for x from 1 to 2^126: a guess from its exponent, 12% off at most, and Newton's steps, which square that.
static inline float reciprocal(float x) {
    int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits = 0x7EF311C7 - bits;
    float guess;
    __builtin_memcpy(&guess, &bits, sizeof guess);
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) guess = fused(guess, fused(-x, guess, 1.0f), guess);
    return guess;
}

// 2 to a whole number from -126 to 127; of a NaN any number.
static inline float power_of_two(float whole) {
    const float shifted = whole + ROUNDING;
    uint32_t bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return power;
}

// One number as a register (kernels.h). Its products are rounded once where the processor can. Of each file its own, since
// they are compiled for different processors.
namespace {
struct Number {
    using Register = float;
    static Register broadcast(float value) { return value; }
    static Register add(Register a, Register b) { return a + b; }
    static Register larger(Register a, Register b) { return a > b ? a : b; }
    static Register multiply(Register a, Register b) { return a * b; }
    static Register add_product(Register a, Register b, Register sum) { return fused(a, b, sum); }
    static Register times_power(Register number, Register whole) { return number * power_of_two(whole); }
};
}  // namespace

// c[0] x^(N - 1) + ... + c[N - 1].
template <class V = Number, int N>
static inline typename V::Register polynomial(typename V::Register x, const float (&c)[N]) {
    auto sum = V::broadcast(c[0]);
#pragma GCC unroll 16
    for (int i = 1; i < N; i++) sum = V::add_product(sum, x, V::broadcast(c[i]));
    return sum;
}

// e^x for x <= 0 (Cephes' polynomial); no smaller than e^-87.
template <class V = Number>
static inline typename V::Register exponential(typename V::Register x) {
    constexpr float OF_REST[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    x = V::larger(V::broadcast(-87.0f), x);  // which keeps a NaN: that of the second is taken
    const auto shifted = V::add_product(x, V::broadcast(1.44269504088896341f), V::broadcast(ROUNDING));
    const auto whole = V::add(shifted, V::broadcast(-ROUNDING));
    const auto near = V::add_product(whole, V::broadcast(-0.693359375f), x);
    const auto rest = V::add_product(whole, V::broadcast(2.12194440e-4f), near);
    const auto sum = V::add_product(V::multiply(polynomial<V>(rest, OF_REST), rest), rest, rest);
    return V::times_power(V::add(sum, V::broadcast(1.0f)), whole);
}

// e^x for any x, no larger than e^87.
static inline float exponential_of_any(float x) { return exponential(x > 87.0f ? 87.0f : x); }

static inline float sigmoid(float x) { return reciprocal(1.0f + exponential_of_any(-x)); }

// An odd function that rises to `most`, which it is beyond `far`: up to there x times a quotient of polynomials of x^2.
template <int A, int B>
static inline float odd(float x, const float (&above)[A], const float (&below)[B], float far, float most) {
    const float size = x < 0 ? -x : x, square = x * x;
    const float near = size * polynomial(square, above) * reciprocal(polynomial(square, below));
    const float capped = near > most ? most : near, found = size > far ? most : capped;
    return x < 0 ? -found : found;
}

// Fitted for this; 2e-8 off in exact numbers, 4e-7 in these.
static inline float hyperbolic_tangent(float x) {
    constexpr float ABOVE[] = {1.318431030e-8f, 2.047190411e-5f, 3.486586909e-3f, 1.337320213e-1f, 9.999999064e-1f};
    constexpr float BELOW[] = {7.702702089e-7f, 3.271393192e-4f, 2.584199891e-2f, 4.670649902e-1f, 1.0f};
    return odd(x, ABOVE, BELOW, 9.0f, 1.0f);
}

// x times the normal distribution up to x, whose distance from one half is an odd function. Fitted for this; 1e-8 off in
// exact numbers, and here up to 2e-7 of x.
static inline float gelu(float x) {
    constexpr float ABOVE[] = {2.214533318e-8f, 6.356472484e-6f, 1.738473586e-4f,
                               4.707239169e-3f, 3.437581491e-2f, 3.989422216e-1f};
    constexpr float BELOW[] = {1.180208069e-6f, 7.510063968e-5f, 1.912959639e-3f,
                               2.893991422e-2f, 2.528331032e-1f, 1.0f};
    return x * (0.5f + odd(x, ABOVE, BELOW, 5.6f, 0.5f));
}

static inline float gelu_by_tanh(float x) {
    return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608028654f * fused(0.044715f * x * x, x, x)));
}

}  // namespace lessen
