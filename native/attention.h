// Attention of one row to itself, one head at a time, with what each key gets counted on the way.
//
// Keys are transposed first, so that scores of neighbouring keys lie in the lanes of a register and no sum runs
// across lanes. Four queries go together: their scores, their softmax, and the values they mix stay in the
// caches. A query's result does not depend on which queries it went with.
#pragma once

#include "elementary.h"
#include "kernels.h"

namespace lessen {

constexpr int QUERIES = 4;

// out[r][..] = sum over `depth` of left[r][i] * right[i][..], for R rows and G registers of columns.
template <class V, int R, int G>
inline void product(const float *left, int64_t left_step, const float *right, int64_t right_step, int64_t depth,
                    float *out, int64_t out_step) {
    Sums<V, R, G> sums{};
    for (int64_t i = 0; i < depth; i++) {
        typename V::Register factor[G];
        for (int g = 0; g < G; g++) factor[g] = V::load(right + i * right_step + g * V::lanes);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const auto value = V::broadcast(left[r * left_step + i]);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) sums.at[r][g] = V::add_product(value, factor[g], sums.at[r][g]);
        }
    }
    const auto done = sums;
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) V::store(out + r * out_step + g * V::lanes, done.at[r][g]);
}

// The same for `columns`, a multiple of the lanes.
template <class V, int R>
inline void products(const float *left, int64_t left_step, const float *right, int64_t right_step, int64_t depth,
                     float *out, int64_t out_step, int64_t columns) {
    int64_t c = 0;
    for (; c + V::groups * V::lanes <= columns; c += V::groups * V::lanes)
        product<V, R, V::groups>(left, left_step, right + c, right_step, depth, out + c, out_step);
    for (; c < columns; c += V::lanes)
        product<V, R, 1>(left, left_step, right + c, right_step, depth, out + c, out_step);
}

// Scores of one query to probabilities, in place; places beyond `tokens` become 0.
template <class V>
inline void softmax(float *scores, int64_t tokens, int64_t room, float scale) {
    for (int64_t i = tokens; i < room; i++) scores[i] = scores[0];
    auto most = V::load(scores);
    for (int64_t i = V::lanes; i < room; i += V::lanes) most = V::larger(most, V::load(scores + i));
    float lanes[V::lanes];
    V::store(lanes, most);
    float largest = lanes[0];
    for (float lane : lanes) largest = largest < lane ? lane : largest;
    for (int64_t i = 0; i < room; i++) scores[i] = exponential((scores[i] - largest) * scale);
    for (int64_t i = tokens; i < room; i++) scores[i] = 0.0f;
    auto sums = V::zero();
    for (int64_t i = 0; i < room; i += V::lanes) sums = V::add(sums, V::load(scores + i));
    const auto factor = V::broadcast(1.0f / V::total(sums));
    for (int64_t i = 0; i < room; i += V::lanes) V::store(scores + i, V::multiply(V::load(scores + i), factor));
}

template <class V, int R>
inline void queries(const Attention &a, int64_t first, const float *keys, const float *values, float *space) {
    const int64_t step = 3 * a.heads * a.dim, room = round_up(a.tokens, V::lanes), wide = round_up(a.dim, V::lanes);
    float *scores = space, *mixed = space + R * room;
    products<V, R>(a.qkv + first * step + a.head * a.dim, step, keys, room, a.dim, scores, room, room);
    for (int r = 0; r < R; r++) {
        softmax<V>(scores + r * room, a.tokens, room, 1.0f / __builtin_sqrtf(static_cast<float>(a.dim)));
        if (a.received)
            for (int64_t i = 0; i < a.tokens; i++) a.received[i] += scores[r * room + i];
    }
    products<V, R>(scores, room, values, wide, a.tokens, mixed, wide, wide);
    for (int r = 0; r < R; r++) {
        float *out = a.out + ((first + r) * a.heads + a.head) * a.dim;
        for (int64_t i = 0; i < a.dim; i++) out[i] = mixed[r * wide + i];
    }
}

template <class V>
int64_t attention_space(int64_t tokens, int64_t dim) {
    const int64_t room = round_up(tokens, V::lanes), wide = round_up(dim, V::lanes);
    return dim * room + tokens * wide + QUERIES * (room + wide);
}

// Keys [tokens][dim], `step` apart, to [dim][room]; squares of V::lanes within registers where V can.
template <class V>
inline void transposed(const float *keys, int64_t step, int64_t tokens, int64_t dim, float *to, int64_t room) {
    constexpr int64_t L = V::lanes;
    for (int64_t t = 0; t < tokens; t += L)
        for (int64_t i = 0; i < dim; i += L) {
            if constexpr (V::squares)
                if (t + L <= tokens && i + L <= dim) {
                    V::transpose(keys + t * step + i, step, to + i * room + t, room);
                    continue;
                }
            for (int64_t r = t; r < least(t + L, tokens); r++)
                for (int64_t c = i; c < least(i + L, dim); c++) to[c * room + r] = keys[r * step + c];
        }
}

template <class V>
void attend(const Attention &a, float *space) {
    const int64_t step = 3 * a.heads * a.dim, room = round_up(a.tokens, V::lanes), wide = round_up(a.dim, V::lanes);
    float *keys = space, *values = keys + a.dim * room, *rest = values + a.tokens * wide;
    transposed<V>(a.qkv + (a.heads + a.head) * a.dim, step, a.tokens, a.dim, keys, room);
    for (int64_t t = 0; t < a.tokens; t++) {
        const float *value = a.qkv + t * step + (2 * a.heads + a.head) * a.dim;
        for (int64_t i = 0; i < a.dim; i++) values[t * wide + i] = value[i];
        for (int64_t i = a.dim; i < wide; i++) values[t * wide + i] = 0.0f;
    }
    for (int64_t i = 0; i < a.dim; i++)
        for (int64_t t = a.tokens; t < room; t++) keys[i * room + t] = 0.0f;
    if (a.received)
        for (int64_t t = 0; t < a.tokens; t++) a.received[t] = 0.0f;
    int64_t query = 0;
    for (; query + QUERIES <= a.tokens; query += QUERIES) queries<V, QUERIES>(a, query, keys, values, rest);
    for (; query < a.tokens; query++) queries<V, 1>(a, query, keys, values, rest);
}

}  // namespace lessen
