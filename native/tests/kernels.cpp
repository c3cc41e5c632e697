// Every kernel this processor has, against a plain loop; exits 1 and says which differs.
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#include "check.h"
#include "memory.h"
#include "threads.h"

static void threads(void (*task)(void *), void *data, unsigned count, unsigned) {
    std::vector<std::thread> all;
    for (unsigned i = 0; i < count; i++) all.emplace_back(task, data);
    for (auto &each : all) each.join();
}

// A row's result may depend neither on the rows beside it nor on the threads at work.
static bool same_alone() {
    const int64_t m = 7, n = 1000, k = 70;
    std::vector<float> values(m * k), weight(n * k), together(m * n), alone(n);
    for (int64_t i = 0; i < m * k; i++) values[i] = float(i % 13) / 7;
    for (int64_t i = 0; i < n * k; i++) weight[i] = float(i % 29) / 11;
    lessen_linear_f32(values.data(), weight.data(), nullptr, together.data(), m, n, k, 4);
    for (int64_t row = 0; row < m; row++) {
        lessen_linear_f32(values.data() + row * k, weight.data(), nullptr, alone.data(), 1, n, k, 1);
        for (int64_t i = 0; i < n; i++)
            if (alone[i] != together[row * n + i]) return false;
    }
    return true;
}

// Of tokens that come together each gets what it gets alone, as many as there are; sums may be added in another order.
static bool same_one_by_one() {
    const int64_t heads = 4, key_heads = 2, dim = 20, width = 24, inner = 17, tokens = 75, held = 9;
    const auto numbers = [](int64_t count, int step) {
        std::vector<float> all(count);
        for (int64_t i = 0; i < count; i++) all[i] = float(i * step % 23 - 11) / 60;
        return all;
    };
    const auto qkv = numbers((heads + 2 * key_heads) * dim * width, 7), output = numbers(width * heads * dim, 5);
    const auto up = numbers(inner * width, 3), down = numbers(width * inner, 11), norm = numbers(width, 9);
    const auto hidden = numbers(tokens * width, 13), cosine = numbers(tokens, 1);
    lessen_decoder layer{};
    layer.qkv = {LESSEN_F32, (heads + 2 * key_heads) * dim, width, qkv.data(), nullptr, nullptr};
    layer.rest.output = {LESSEN_F32, width, heads * dim, output.data(), nullptr, nullptr};
    layer.rest.up = {LESSEN_F32, inner, width, up.data(), nullptr, nullptr};
    layer.rest.down = {LESSEN_F32, width, inner, down.data(), nullptr, nullptr};
    layer.rest.before = 1;
    for (lessen_norm &each : layer.rest.norms) each = {norm.data(), nullptr, 1e-5f};
    layer.heads = heads, layer.key_heads = key_heads, layer.dim = dim, layer.rest.activation = LESSEN_SILU;
    layer.scale = 1.0f / std::sqrt(float(dim));
    std::vector<float> found[2];
    for (const bool alone : {false, true}) {
        auto keys = numbers(key_heads * 100 * dim, 17), values = numbers(key_heads * 100 * dim, 19);
        found[alone].resize(tokens * width);
        const int64_t step = alone ? 1 : tokens;
        for (int64_t first = 0; first < tokens; first += step) {
            const lessen_row row{0, step, held + first};
            const lessen_room room{keys.data(), values.data(), 100, &row, 1, nullptr};
            const lessen_decoder *layers[] = {&layer};
            const lessen_room *rooms[] = {&room};
            if (lessen_decoder_layers(layers, rooms, 1, nullptr, cosine.data(), cosine.data(), nullptr,
                                      hidden.data() + first * width, found[alone].data() + first * width, step, 0, 2))
                return false;
        }
    }
    for (int64_t i = 0; i < tokens * width; i++)
        if (!(std::abs(found[0][i] - found[1][i]) <= 1e-5f)) return false;
    return true;
}

// After memory ran out there is room again, much of it is given back, and nothing is thrown into C.
[[maybe_unused]] static bool memory_runs_out() {
    lessen::Space<float> space;
    const float *first = space.of(16);
    try {
        space.of(int64_t(1) << 60);
        return false;
    } catch (const std::bad_alloc &) {
    }
    if (!first || !space.of(16) || space.held() != 16) return false;
    space.of(int64_t(1) << 22);
    if (space.of(int64_t(1) << 21); space.held() != int64_t(1) << 22) return false;
    if (space.of(100); space.held() != 100) return false;
    const int64_t one = 1;
    float number = 0;
    const int64_t many = int64_t(1) << 45;
    const lessen_heads all{&number, &number, &number, 4 * many, 4 * many, many, many, 4, 0, 1.0f};
    return lessen_attention_f32(&all, &one, 1, nullptr, &number, &number, 1, 2) == 1;
}

// A NaN is told, wherever it is.
static bool tells_nan() {
    for (int64_t count : {1, 7, 64, 1000, 1027})
        for (int64_t place : {int64_t(0), count / 2, count - 1}) {
            std::vector<float> values(count, -1.0f);
            int64_t found = 0;
            values[place] = NAN;
            float second, rest, moment;
            if (lessen_likeliest(values.data(), &found, 1, count); found != -1) return false;
            lessen_lead(values.data(), &found, &second, &rest, &moment, 1, count);
            if (found != -1 || !std::isnan(second) || !std::isnan(rest) || !std::isnan(moment)) return false;
            values[place] = 3.0f;
            if (count > 1) values[place ? 0 : 1] = -INFINITY;
            if (lessen_likeliest(values.data(), &found, 1, count); found != place) return false;
            lessen_lead(values.data(), &found, &second, &rest, &moment, 1, count);
            if (found != place || !std::isfinite(rest) || !std::isfinite(moment)) return false;
        }
    return true;
}

// Of a query that is none, or whose keys are, all of what it mixes is none.
static bool mixes_nan() {
    const int64_t heads = 2, dim = 20, width = heads * dim;
    for (int64_t tokens : {1, 5, 17, 40})
        for (int64_t part : {0, 1})  // queries, keys
            for (float bad : {NAN, INFINITY}) {
                std::vector<float> qkv(tokens * 3 * width, 0.5f), out(tokens * width);
                qkv[(tokens - 1) * 3 * width + part * width + dim] = bad;
                const float *from = qkv.data();
                const lessen_heads all{from,      from + width, from + 2 * width, 3 * width, 3 * width, heads,
                                       heads,     dim,          0,                0.2f};
                lessen_attention_f32(&all, &tokens, 1, nullptr, out.data(), nullptr, 0, 1);
                const float *last = out.data() + (tokens - 1) * width;
                for (int64_t i = 0; i < width; i++)
                    if (std::isnan(last[i]) != (i >= dim)) return false;
            }
    return true;
}

// The self-check itself: no kernel is right that gives no number.
static bool check_tells_nan() {
    return worst_of({0.5f, 0.25f}) == 0.5f && std::isinf(worst_of({NAN, 1})) && std::isinf(worst_of({1, NAN, 0.5f}));
}

int main() {
    int wrong = !check_tells_nan();
    if (wrong) std::printf("a NaN in the self-check: WRONG\n");
#ifndef __SANITIZE_ADDRESS__  // which ends a program that asks for too much
    if (!memory_runs_out()) std::printf("memory that runs out: WRONG\n"), wrong++;
#endif
    for (const char *isa : {"amx", "avx512", "avx2", "neon", "scalar"}) {
        if (lessen_use_isa(isa)) continue;
        for (lessen_fork fork : {lessen_fork(nullptr), lessen_fork(threads)}) {
            lessen_use_fork(fork);
            const float difference = lessen_self_check(1);
            const bool good = difference <= 1e-6f && same_alone() && same_one_by_one() && tells_nan() && mixes_nan();
            std::printf("%-7s %s: %s (largest difference %.2g)\n", isa, fork ? "threads" : "alone  ",
                        good ? "ok" : "WRONG", difference);
            wrong += !good;
        }
    }
    if (!lessen_use_isa("no such set")) wrong++;
    return wrong != 0;
}
