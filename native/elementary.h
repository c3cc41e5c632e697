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

// e^x for x <= 0 (Cephes' polynomial); no smaller than e^-87.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float whole = fused(x, 1.44269504088896341f, ROUNDING) - ROUNDING;
    const float rest = fused(whole, 2.12194440e-4f, fused(whole, -0.693359375f, x));
    float sum = fused(1.9875691500e-4f, rest, 1.3981999507e-3f);
    sum = fused(sum, rest, 8.3334519073e-3f);
    sum = fused(sum, rest, 4.1665795894e-2f);
    sum = fused(sum, rest, 1.6666665459e-1f);
    sum = fused(sum, rest, 5.0000001201e-1f);
    sum = fused(sum * rest, rest, rest) + 1.0f;
    return sum * power_of_two(whole);
}

// e^x for any x, no larger than e^87.
static inline float exponential_of_any(float x) { return exponential(x > 87.0f ? 87.0f : x); }

static inline float sigmoid(float x) { return reciprocal(1.0f + exponential_of_any(-x)); }

// Up to 9 a quotient of polynomials (fitted for this; 2e-8 in exact numbers, 4e-7 in these), and 1 beyond.
static inline float hyperbolic_tangent(float x) {
    const float size = x < 0 ? -x : x, square = x * x;
    float above = fused(1.318431030e-8f, square, 2.047190411e-5f);
    above = fused(above, square, 3.486586909e-3f);
    above = fused(above, square, 1.337320213e-1f);
    above = fused(above, square, 9.999999064e-1f);
    float below = fused(7.702702089e-7f, square, 3.271393192e-4f);
    below = fused(below, square, 2.584199891e-2f);
    below = fused(below, square, 4.670649902e-1f);
    below = fused(below, square, 1.0f);
    const float near = size * above * reciprocal(below), most = near > 1.0f ? 1.0f : near;
    const float found = size > 9.0f ? 1.0f : most;
    return x < 0 ? -found : found;
}

// x times the normal distribution up to x, whose distance from one half is an odd function: up to 5.6 a quotient of
// polynomials (fitted for this; 1e-8 in exact numbers, and here up to 2e-7 of x), and one half beyond.
static inline float gelu(float x) {
    const float size = x < 0 ? -x : x, square = x * x;
    float above = fused(2.214533318e-8f, square, 6.356472484e-6f);
    above = fused(above, square, 1.738473586e-4f);
    above = fused(above, square, 4.707239169e-3f);
    above = fused(above, square, 3.437581491e-2f);
    above = fused(above, square, 3.989422216e-1f);
    float below = fused(1.180208069e-6f, square, 7.510063968e-5f);
    below = fused(below, square, 1.912959639e-3f);
    below = fused(below, square, 2.893991422e-2f);
    below = fused(below, square, 2.528331032e-1f);
    below = fused(below, square, 1.0f);
    const float near = size * above * reciprocal(below), most = near > 0.5f ? 0.5f : near;
    const float apart = size > 5.6f ? 0.5f : most;
    return x * (0.5f + (x < 0 ? -apart : apart));
}

static inline float gelu_by_tanh(float x) {
    return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608028654f * fused(0.044715f * x * x, x, x)));
}

}  // namespace lessen
