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

// The same for `columns`, a multiple of the lanes: as many registers of them together as there are sums for.
template <class V, int R, int G = V::groups>
inline void products(const float *left, int64_t left_step, const float *right, int64_t right_step, int64_t depth,
                     float *out, int64_t out_step, int64_t columns) {
    int64_t c = 0;
    for (; c + G * V::lanes <= columns; c += G * V::lanes)
        product<V, R, G>(left, left_step, right + c, right_step, depth, out + c, out_step);
    if constexpr (G > 1)
        if (c < columns)
            products<V, R, G / 2>(left, left_step, right + c, right_step, depth, out + c, out_step, columns - c);
}

// Scores of R queries, `room` apart, to probabilities, in place; places beyond `tokens` become 0.
template <class V, int R>
inline void softmax(float *scores, int64_t tokens, int64_t room, float scale) {
    const int64_t end = round_up(tokens, V::lanes), last = end - V::lanes, left = tokens - last;
    const auto none = V::broadcast(-3e38f), factor = V::broadcast(scale);
    Sums<V, R, 1> most, sums{};
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        most.at[r][0] = V::beginning(V::load(scores + r * room + last), left, none);
        V::store(scores + r * room + last, most.at[r][0]);
    }
    for (int64_t i = 0; i < last; i += V::lanes)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) most.at[r][0] = V::larger(most.at[r][0], V::load(scores + r * room + i));
    Sums<V, R, 1> less;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) less.at[r][0] = V::broadcast(-V::largest(most.at[r][0]));
    for (int64_t i = 0; i < end; i += V::lanes)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            float *at = scores + r * room + i;
            auto share = exponential<V>(V::multiply(V::add(V::load(at), less.at[r][0]), factor));
            if (i == last) share = V::beginning(share, left, V::zero());
            V::store(at, share);
            sums.at[r][0] = V::add(sums.at[r][0], share);
        }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) sums.at[r][0] = V::broadcast(1.0f / V::total(sums.at[r][0]));
    for (int64_t i = 0; i < end; i += V::lanes)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            float *at = scores + r * room + i;
            V::store(at, V::multiply(V::load(at), sums.at[r][0]));
        }
    for (int r = 0; r < R; r++)
        for (int64_t i = end; i < room; i += V::lanes) V::store(scores + r * room + i, V::zero());
}

// Scores of a query and the first keys at their scale, with their bias.
inline void add_bias(const Attention &a, int64_t query, int64_t keys, float *scores) {
    const float *near = a.bias - (a.places ? a.places[query] : query);
    if (a.places)
        for (int64_t i = 0; i < keys; i++) scores[i] = fused(scores[i], a.scale, near[a.places[i]]);
    else
        for (int64_t i = 0; i < keys; i++) scores[i] = fused(scores[i], a.scale, near[i]);
}

template <class V, int R>
inline void queries(const Attention &a, int64_t first, const float *keys, const float *values, float *space) {
    const int64_t room = round_up(a.tokens, V::lanes), wide = round_up(a.dim, V::lanes);
    const int64_t seen = a.causal ? first + R : a.tokens;
    float *scores = space, *mixed = space + R * room, *out = a.out + first * a.out_step;
    products<V, R>(a.queries + first * a.query_step, a.query_step, keys, room, a.dim, scores, room, round_up(seen, V::lanes));
    if (a.bias)
        for (int r = 0; r < R; r++) add_bias(a, first + r, seen, scores + r * room);
    const auto unseen = [&](float value) {
        for (int64_t r = 0; a.causal && r < R - 1; r++)
            for (int64_t i = first + r + 1; i < seen; i++) scores[r * room + i] = value;
    };
    unseen(-3e38f);
    softmax<V, R>(scores, seen, room, a.bias ? 1.0f : a.scale);
    unseen(0.0f);
    if (a.received)
        for (int64_t r = greater(0, a.listened - first); r < R; r++)
            for (int64_t i = 0; i < seen; i++) a.received[i] += scores[r * room + i];
    if (wide == a.dim) return products<V, R>(scores, room, values, wide, seen, out, a.out_step, wide);
    products<V, R>(scores, room, values, wide, seen, mixed, wide, wide);
    for (int r = 0; r < R; r++)
        for (int64_t i = 0; i < a.dim; i++) out[r * a.out_step + i] = mixed[r * wide + i];
}

template <class V>
int64_t attention_space(int64_t tokens, int64_t dim) {
    const int64_t room = round_up(tokens, V::lanes), wide = round_up(dim, V::lanes);
    return dim * room + tokens * wide + QUERIES * (room + wide);
}

// Keys [tokens][dim], `step` apart, to [dim][room], where beyond `tokens` any keys may stand; squares of V::lanes within
// registers where V can.
template <class V>
inline void transposed(const float *keys, int64_t step, int64_t tokens, int64_t dim, float *to, int64_t room) {
    constexpr int64_t L = V::lanes;
    for (int64_t t = 0; t < tokens; t += L)
        for (int64_t i = 0; i < dim; i += L) {
            if constexpr (V::squares)
                if (i + L <= dim) {
                    V::transpose(keys + t * step + i, step, least(L, tokens - t), to + i * room + t, room);
                    continue;
                }
            for (int64_t r = t; r < t + L; r++)
                for (int64_t c = i; c < least(i + L, dim); c++)
                    to[c * room + r] = r < tokens ? keys[r * step + c] : 0.0f;
        }
}

template <class V>
void attend(const Attention &a, float *space) {
    const int64_t room = round_up(a.tokens, V::lanes), wide = round_up(a.dim, V::lanes);
    float *keys = space, *values = keys + a.dim * room, *rest = values + a.tokens * wide;
    transposed<V>(a.keys, a.key_step, a.tokens, a.dim, keys, room);
    for (int64_t t = 0; t < a.tokens; t++) {
        const float *value = a.values + t * a.key_step;
        int64_t i = 0;
        for (; i + V::lanes <= a.dim; i += V::lanes) V::store(values + t * wide + i, V::load(value + i));
        for (; i < wide; i++) values[t * wide + i] = i < a.dim ? value[i] : 0.0f;
    }
    if (a.received)
        for (int64_t t = 0; t < a.tokens; t++) a.received[t] = 0.0f;
    int64_t query = 0;
    for (; query + QUERIES <= a.tokens; query += QUERIES) queries<V, QUERIES>(a, query, keys, values, rest);
    for (; query < a.tokens; query++) queries<V, 1>(a, query, keys, values, rest);
}

}  // namespace lessen
