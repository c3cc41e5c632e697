// Attention of a row's new tokens to all tokens it has so far, whose keys and values a cache holds; or to a source.
//
// Query heads that share keys go together, so that keys and values are read once for all of them. Of many tokens
// a few go at a time, with the keys up to the last of these: what is kept of scores grows with the tokens, not with
// their square, and none of the keys after them is multiplied. A token's result does not depend on which tokens it
// came with, but for the order in which the sums of the last few keys of a block are added up.
#pragma once

#include "attention.h"
#include "linear.h"

namespace lessen {

constexpr int64_t AT_ONCE = 32;  // tokens of a row whose scores are kept together

template <class V>
int64_t cached_space(int64_t tokens, int64_t shared, int64_t total, int64_t dim) {
    return least(tokens, AT_ONCE) * shared * (2 * dim + total + round_up(total, V::lanes));
}

// out[r] = sum over `depth` of shares[r][i] * values[i], each of `dim` numbers.
template <class V, int R>
inline void mixture(const float *shares, int64_t room, const float *values, int64_t depth, int64_t dim, float *out) {
    const int64_t whole = dim / V::lanes * V::lanes;
    products<V, R>(shares, room, values, dim, depth, out, dim, whole);
    for (int r = 0; r < R; r++)
        for (int64_t c = whole; c < dim; c++) {
            float sum = 0;
            for (int64_t i = 0; i < depth; i++) sum += shares[r * room + i] * values[i * dim + c];
            out[r * dim + c] = sum;
        }
}

template <class V>
void attend_few(const Cached &a, float *space) {
    const int64_t dim = a.dim, m = a.tokens * a.shared, total = a.source ? a.held : a.held + a.tokens;
    const int64_t room = round_up(total, V::lanes);
    float *queries = space, *mixed = queries + m * dim, *scores = mixed + m * dim, *shares = scores + m * total;
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < dim; i++) queries[r * dim + i] = a.queries[r / a.shared * a.apart + r % a.shared * dim + i];
    const int64_t all = (total + V::columns - 1) / V::columns;
    panels<V>({queries, a.keys, nullptr, scores, m, total, dim}, 0, all, all);
    for (int64_t r = 0; r < m; r++) {
        const int64_t place = a.held + r / a.shared;
        const float *from = scores + r * total, *bias = a.bias ? a.bias + r % a.shared * a.heads_apart - place : nullptr;
        float *to = shares + r * room;
        for (int64_t i = 0; i < total; i++) to[i] = from[i];
        if (bias)
            for (int64_t i = 0; i <= place; i++) to[i] = fused(to[i], a.scale, bias[i]);
        softmax<V, 1>(to, a.source ? total : place + 1, room, bias ? 1.0f : a.scale);
    }
    int64_t r = 0;
    for (; r + QUERIES <= m; r += QUERIES)
        mixture<V, QUERIES>(shares + r * room, room, a.values, total, dim, mixed + r * dim);
    for (; r < m; r++) mixture<V, 1>(shares + r * room, room, a.values, total, dim, mixed + r * dim);
    for (r = 0; r < m; r++)
        for (int64_t i = 0; i < dim; i++) a.out[r / a.shared * a.out_apart + r % a.shared * dim + i] = mixed[r * dim + i];
}

template <class V>
void attend_cached(const Cached &a, float *space) {
    for (int64_t first = 0; first < a.tokens; first += AT_ONCE) {
        Cached few = a;
        few.queries += first * a.apart, few.out += first * a.out_apart;
        few.tokens = least(AT_ONCE, a.tokens - first);
        if (!a.source) few.held += first;
        attend_few<V>(few, space);
    }
}

// A row normed: LayerNorm, or with `rms` RMSNorm; the bias may be missing.
template <class V>
void norm_row(const float *from, const Norm &norm, bool rms, int64_t count, float *to) {
    const auto sum_of = [&](float mean, bool squares) {
        const auto less = V::broadcast(-mean);
        auto sums = V::zero();
        float rest = 0;
        int64_t i = 0;
        for (; i + V::lanes <= count; i += V::lanes) {
            const auto apart = V::add(V::load(from + i), less);
            sums = squares ? V::add_product(apart, apart, sums) : V::add(sums, apart);
        }
        for (; i < count; i++) rest += squares ? (from[i] - mean) * (from[i] - mean) : from[i] - mean;
        return V::total(sums) + rest;
    };
    const float mean = rms ? 0.0f : sum_of(0.0f, false) / static_cast<float>(count);
    const float inverse = 1.0f / __builtin_sqrtf(sum_of(mean, true) / static_cast<float>(count) + norm.eps);
    for (int64_t i = 0; i < count; i++)
        to[i] = (from[i] - mean) * inverse * norm.weight[i] + (norm.bias ? norm.bias[i] : 0.0f);
}

}  // namespace lessen
