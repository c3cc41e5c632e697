// What a layer does to one token at a time: activations, and sums that are normed.
#pragma once

#include "attention.h"

namespace lessen {

// A row of a table as numbers.
static void read_row(const Stored &stored, int64_t count, float *to) {
    switch (stored.as) {
    case Stored::As::numbers:
        __builtin_memcpy(to, stored.row, count * sizeof(float));
        return;
    case Stored::As::bytes:
        for (int64_t i = 0; i < count; i++) to[i] = stored.scale * static_cast<const int8_t *>(stored.row)[i];
        return;
    case Stored::As::signs:
        for (int64_t start = 0; start < count; start += 32) {
            const uint32_t signs = static_cast<const uint64_t *>(stored.row)[start / 64] >> (start % 64);
            uint32_t scale, numbers[32];
            __builtin_memcpy(&scale, &stored.scale, sizeof scale);
            for (int i = 0; i < 32; i++) numbers[i] = scale ^ (signs >> i << 31);
            __builtin_memcpy(to + start, numbers, least(32, count - start) * sizeof(float));
        }
    }
}

// to[i] = activation(from[i]) - centre
static void activate(Activation activation, float centre, const float *from, int64_t count, float *to) {
    switch (activation) {
    case Activation::gelu:
        for (int64_t i = 0; i < count; i++) to[i] = gelu(from[i]) - centre;
        return;
    case Activation::gelu_by_tanh:
        for (int64_t i = 0; i < count; i++) to[i] = gelu_by_tanh(from[i]) - centre;
        return;
    case Activation::relu:
        for (int64_t i = 0; i < count; i++) to[i] = (from[i] < 0 ? 0.0f : from[i]) - centre;
        return;
    case Activation::silu:
        for (int64_t i = 0; i < count; i++) to[i] = from[i] * sigmoid(from[i]) - centre;
        return;
    case Activation::sigmoid:
        for (int64_t i = 0; i < count; i++) to[i] = sigmoid(from[i]) - centre;
        return;
    case Activation::tanh:
        for (int64_t i = 0; i < count; i++) to[i] = hyperbolic_tangent(from[i]) - centre;
        return;
    }
}

// The place of the largest number, the first of equal ones; -1 if there is a NaN, which their sum would tell.
template <class V>
int64_t largest(const float *from, int64_t count) {
    constexpr int64_t together = 64 * V::lanes;  // of these the largest is remembered, and looked for in the end
    float best = -__builtin_inff(), rest = 0;
    int64_t place = 0;
    auto sums = V::zero();
    for (int64_t start = 0; start < count; start += together) {
        const int64_t end = least(count, start + together);
        float most = best;
        int64_t i = start;
        if (i + V::lanes <= end) {
            auto larger = V::load(from + i);
            sums = V::add(sums, larger);
            for (i += V::lanes; i + V::lanes <= end; i += V::lanes) {
                const auto value = V::load(from + i);
                larger = V::larger(larger, value), sums = V::add(sums, value);
            }
            const float lane = V::largest(larger);
            most = lane > most ? lane : most;
        }
        for (; i < end; i++) most = from[i] > most ? from[i] : most, rest += from[i];
        if (most > best) best = most, place = start;
    }
    if (const float all = V::total(sums) + rest; all != all)  // or there are infinities of both signs
        for (int64_t i = 0; i < count; i++)
            if (from[i] != from[i]) return -1;
    while (place < count - 1 && from[place] != best) place++;
    return place;
}

// What all numbers but the largest, which stands at `place`, are to it.
template <class V>
Shares shares(const float *from, int64_t count, int64_t place) {
    constexpr int64_t together = 256;
    constexpr float none = -3e38f;  // so far below that its share is 0
    float apart[together], share[together], near[together];
    auto next = V::broadcast(none), rest = V::zero(), moment = V::zero();
    for (int64_t start = 0; start < count; start += together) {
        const int64_t some = least(together, count - start), room = round_up(some, V::lanes);
        for (int64_t i = 0; i < some; i++) apart[i] = from[start + i] - from[place];
        for (int64_t i = some; i < room; i++) apart[i] = none;
        if (place >= start && place < start + some) apart[place - start] = none;
        for (int64_t i = 0; i < room; i++) near[i] = apart[i] < -87.0f ? -87.0f : apart[i];
        for (int64_t i = 0; i < room; i++) share[i] = apart[i] < -87.0f ? 0.0f : exponential(near[i]);
        for (int64_t i = 0; i < room; i += V::lanes) {
            const auto part = V::load(share + i);
            next = V::larger(next, V::load(apart + i));
            rest = V::add(rest, part), moment = V::add_product(part, V::load(near + i), moment);
        }
    }
    const float second = V::largest(next);
    return {second > none ? second : -__builtin_inff(), V::total(rest), V::total(moment)};
}

// to = norm(left + right), or norm(left + right * factor) if there is a factor.
template <class V>
void add_norm(const float *left, const float *right, const float *factor, const Norm &norm, int64_t count, float *to) {
    auto sums = V::zero();
    float rest = 0;
    int64_t i = 0;
    for (; i + V::lanes <= count; i += V::lanes) {
        const auto here = V::load(right + i);
        const auto sum = factor ? V::add_product(here, V::load(factor + i), V::load(left + i))
                                : V::add(here, V::load(left + i));
        V::store(to + i, sum);
        sums = V::add(sums, sum);
    }
    for (; i < count; i++) rest += to[i] = left[i] + (factor ? right[i] * factor[i] : right[i]);
    const float mean = (V::total(sums) + rest) / static_cast<float>(count);
    const auto less = V::broadcast(-mean);
    sums = V::zero(), rest = 0;
    for (i = 0; i + V::lanes <= count; i += V::lanes) {
        const auto apart = V::add(V::load(to + i), less);
        sums = V::add_product(apart, apart, sums);
    }
    for (; i < count; i++) rest += (to[i] - mean) * (to[i] - mean);
    const float inverse = 1.0f / __builtin_sqrtf((V::total(sums) + rest) / static_cast<float>(count) + norm.eps);
    const auto scale = V::broadcast(inverse);
    for (i = 0; i + V::lanes <= count; i += V::lanes) {
        const auto apart = V::multiply(V::add(V::load(to + i), less), scale);
        V::store(to + i, V::add_product(apart, V::load(norm.weight + i), V::load(norm.bias + i)));
    }
    for (; i < count; i++) to[i] = (to[i] - mean) * inverse * norm.weight[i] + norm.bias[i];
}

}  // namespace lessen
