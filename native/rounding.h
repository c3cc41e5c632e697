// Real numbers as whole ones, in operations that compilers put into registers side by side.
#pragma once

#include <cstdint>
#include <limits>

namespace lessen {

// 1.5 * 2^23: a number from -2^22 to 2^22 added to it is rounded to a whole one, the even one of two as near.
constexpr float ROUNDING = 12582912.0f;

// Rows without a larger number count as zeros: 127 divided by it must be finite.
constexpr float SMALLEST = 1e-30f;

static inline int32_t rounded(float number) {
    const float shifted = number + ROUNDING;
    int32_t bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    return bits - 0x4B400000;
}

// The largest absolute value, NaN if there is one: bits of positive numbers are in the order of the numbers, and whole
// numbers can be compared in any order.
static inline float largest_size(const float *from, int64_t count) {
    int32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t size;
        __builtin_memcpy(&size, from + i, sizeof size);
        size &= 0x7FFFFFFF;
        most = size > most ? size : most;
    }
    float largest;
    __builtin_memcpy(&largest, &most, sizeof largest);
    return largest;
}

// What whole numbers are times, where the largest was this; NaN where it is none or infinite, so that a row with such a
// number becomes NaN, as it does where torch divides by it.
static inline float step_of(float largest) {
    return largest <= std::numeric_limits<float>::max() ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

// Numbers as whole ones from -127 to 127 times a step, the largest becoming 127. Returns the step.
static inline float whole_numbers(const float *from, int64_t count, int8_t *__restrict to, int32_t *total) {
    const float largest = largest_size(from, count);
    const float inverse = largest > SMALLEST ? 127.0f / largest : 0.0f;
    uint32_t sum = 0;  // which may overflow, as it does where a number is none
    for (int64_t i = 0; i < count; i++) {
        const int32_t whole = rounded(from[i] * inverse);
        to[i] = static_cast<int8_t>(whole);
        sum += static_cast<uint32_t>(whole);
    }
    *total = static_cast<int32_t>(sum);
    return step_of(largest);
}

}  // namespace lessen
