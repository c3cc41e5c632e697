// Whole layers of a decoder for a few tokens, in one call: what is between their products is small and many.
#include <algorithm>
#include <cstring>
#include <vector>

#include "crew.h"
#include "dispatch.h"
#include "heads.h"
#include "memory.h"
#include "products.h"
#include "threads.h"

namespace lessen {
namespace {

// Attention of all rows, one head of keys at a time by each thread.
void attend(const lessen_decoder &layer, const lessen_room &room, const lessen_bias *bias, const float *qkv,
            float *context, int threads) {
    const int64_t shared = layer.heads / layer.key_heads, dim = layer.dim;
    const int64_t apart = (layer.heads + 2 * layer.key_heads) * dim, inner = layer.heads * dim;
    const Near near(bias, layer.of_bias);
    std::vector<int64_t> starts{0};  // of the rows among the tokens
    int64_t multiplications = 0;
    for (int64_t r = 0; r < room.count; r++) {
        const lessen_row &row = room.rows[r];
        starts.push_back(starts.back() + row.tokens);
        multiplications += 2 * row.tokens * (row.held + row.tokens) * inner;
    }
    in_turns(room.count * layer.key_heads, 1, worth(multiplications, threads), [&](int64_t item, int64_t) {
        thread_local Space<float> space;
        const int64_t row = item / layer.key_heads, head = item % layer.key_heads, start = starts[row];
        const lessen_row &at = room.rows[row];
        const int64_t offset = (at.row * layer.key_heads + head) * room.capacity * dim;
        const int64_t first = head * shared * dim;
        kernel->attend_cached({qkv + start * apart + first, apart, room.keys + offset, room.values + offset,
                               context + start * inner + first, inner, at.tokens, at.held, shared, dim, layer.scale,
                               false, near.of(head * shared), near.apart},
                              space.of(kernel->cached_space(at.tokens, shared, at.held + at.tokens, dim)));
    });
}

// Attention of all rows to their sources, one head at a time by each thread.
void attend_across(const lessen_decoder &layer, const lessen_room &room, const float *queries, float *context,
                   int threads) {
    const int64_t dim = layer.dim, inner = layer.heads * dim;
    int64_t multiplications = 0;
    for (int64_t r = 0; r < room.count; r++) multiplications += 2 * room.rows[r].tokens * room.sources[r].tokens * inner;
    in_turns(room.count * layer.heads, 1, worth(multiplications, threads), [&](int64_t item, int64_t) {
        thread_local Space<float> space;
        const int64_t row = item / layer.heads, head = item % layer.heads;
        int64_t start = 0;
        for (int64_t r = 0; r < row; r++) start += room.rows[r].tokens;
        const lessen_source &source = room.sources[row];
        const int64_t offset = head * source.tokens * dim, first = start * inner + head * dim;
        const int64_t tokens = room.rows[row].tokens;
        kernel->attend_cached({queries + first, inner, source.keys + offset, source.values + offset, context + first,
                               inner, tokens, source.tokens, 1, dim, layer.scale, true, nullptr, 0},
                              space.of(kernel->cached_space(tokens, 1, source.tokens, dim)));
    });
}

// Queries and keys normed and turned, in place.
void place(const lessen_decoder &layer, const float *cosine, const float *sine, float *qkv, int64_t m) {
    const int64_t dim = layer.dim, turning = layer.heads + layer.key_heads, half = layer.turned / 2;
    for (int64_t item = 0; item < m * turning; item++) {
        const int64_t token = item / turning, head = item % turning;
        float *values = qkv + (token * (turning + layer.key_heads) + head) * dim;
        const lessen_norm &norm = head < layer.heads ? layer.query_norm : layer.key_norm;
        if (norm.weight) kernel->norm_row(values, norm, true, dim, values);
        const float *cosines = cosine + token * layer.turned, *sines = sine + token * layer.turned;
        for (int64_t i = 0; i < half; i++) {
            const float a = values[i], b = values[i + half];
            values[i] = a * cosines[i] + b * sines[i];
            values[i + half] = b * cosines[i + half] + a * sines[i + half];
        }
    }
}

// Keys and values of new tokens to the end of what is held of their rows.
void remember(const lessen_decoder &layer, const lessen_room &room, const float *qkv) {
    const int64_t dim = layer.dim, keys = layer.heads * dim, values = keys + layer.key_heads * dim;
    for (int64_t r = 0; r < room.count; r++)
        for (int64_t t = 0; t < room.rows[r].tokens; t++, qkv += values + layer.key_heads * dim)
            for (int64_t head = 0; head < layer.key_heads; head++) {
                const int64_t line = (room.rows[r].row * layer.key_heads + head) * room.capacity;
                const int64_t to = (line + room.rows[r].held + t) * dim;
                std::copy_n(qkv + keys + head * dim, dim, room.keys + to);
                std::copy_n(qkv + values + head * dim, dim, room.values + to);
            }
}

// A layer on its input [m][width], in place.
void run_layer(const lessen_decoder &layer, const lessen_room &room, const float *cosine, const float *sine,
               const lessen_bias *bias, float *hidden, int64_t m, int threads) {
    const lessen_rest &rest = layer.rest;
    const int64_t width = rest.output.n, all = m * width;
    thread_local Space<float> of_normed, of_qkv, of_context, of_output, of_input;
    float *made = of_normed.of(all), *qkv = of_qkv.of(m * layer.qkv.n), *output = of_output.of(all);
    float *context = of_context.of(m * layer.heads * layer.dim);
    const auto add = [&](const float *found) {
        for (int64_t i = 0; i < all; i++) hidden[i] += found[i];
    };

    multiply(layer.qkv, normed(hidden, rest.norms[0], rest.rms, width, made), qkv, m, threads);
    place(layer, cosine, sine, qkv, m);
    remember(layer, room, qkv);
    attend(layer, room, bias, qkv, context, threads);
    multiply(rest.output, {Source::plain, context, rest.output.k}, output, m, threads);
    if (layer.parallel) {
        float *input = of_input.of(all);
        std::copy_n(hidden, all, input);
        add(output);
        feed_forward(rest, normed(input, rest.norms[1], rest.rms, width, made), output, m, threads);
        add(output);
        return;
    }
    add(output);
    if (layer.query.n) {
        multiply(layer.query, normed(hidden, layer.read_norm, rest.rms, width, made), qkv, m, threads);
        attend_across(layer, room, qkv, context, threads);
        multiply(layer.read_output, {Source::plain, context, layer.read_output.k}, output, m, threads);
        add(output);
    }
    feed_forward(rest, normed(hidden, rest.norms[1], rest.rms, width, made), output, m, threads);
    add(output);
}

// To bfloat16 and back, to the nearest, of two to the even one.
void narrow_all(float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
        std::memcpy(values + i, &bits, sizeof bits);
    }
}

struct Layers {
    const lessen_decoder *const *layers;
    const lessen_room *const *rooms;
    int64_t count;
    const lessen_norm *last;
    const float *cosine, *sine;
    const lessen_bias *bias;
    float *hidden;
    int64_t m;
    bool narrow;
    int threads;
};

void run_layers(void *data) {
    const auto &all = *static_cast<Layers *>(data);
    for (int64_t each = 0; each < all.count; each++) {
        const lessen_decoder &layer = *all.layers[each];
        run_layer(layer, *all.rooms[each], all.cosine, all.sine, all.bias, all.hidden, all.m, all.threads);
        if (all.narrow) narrow_all(all.hidden, all.m * layer.rest.output.n);
    }
    const lessen_decoder &layer = *all.layers[all.count - 1];
    for (int64_t row = 0; all.last && row < all.m; row++) {
        float *line = all.hidden + row * layer.rest.output.n;
        kernel->norm_row(line, *all.last, layer.rest.rms, layer.rest.output.n, line);
    }
}

}  // namespace
}  // namespace lessen

using namespace lessen;

int lessen_decoder_layers(const lessen_decoder *const *layers, const lessen_room *const *rooms, int64_t count,
                          const lessen_norm *last, const float *cosine, const float *sine, const lessen_bias *bias,
                          const float *hidden, float *out, int64_t m, int narrow, int threads) {
    if (m <= 0 || count <= 0) return 0;
    std::copy_n(hidden, m * layers[0]->rest.output.n, out);
    Layers all{layers, rooms, count, last, cosine, sine, bias, out, m, narrow != 0, threads};
    return result_of([&] { together(run_layers, &all, threads); });
}

void lessen_likeliest(const float *values, int64_t *out, int64_t m, int64_t n) {
    for (int64_t row = 0; row < m; row++) out[row] = kernel->largest(values + row * n, n);
}
