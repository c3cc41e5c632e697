// The C ABI: which kernels, how many threads, and whether they compute what plain loops do.
#include "lessen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace lessen {
namespace {

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t SMALL = 1 << 16;
// Panels a thread takes at a time: few enough that a busy core does not keep the others waiting.
constexpr int64_t PANELS = 8;

const Kernel *available(int place) {
#if defined(LESSEN_X86)
    if (place == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return &avx512;
    if (place == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2;
#elif defined(LESSEN_NEON)
    if (place == 0) return &neon;
#endif
    return place == 2 ? &scalar : nullptr;
}

const Kernel *best() {
    for (int place = 0; place < 3; place++)
        if (const Kernel *kernel = available(place)) return kernel;
    return &scalar;
}

const Kernel *kernel = best();
lessen_fork fork_with = nullptr;

// Run work(data) on so many threads, or here if that is not worth it.
void run(void (*work)(void *), void *data, int threads) {
    if (threads > 1)
        fork_with(work, data, static_cast<unsigned>(threads), 0);
    else
        work(data);
}

int worth(int64_t multiplications, int threads) {
    return fork_with && multiplications >= SMALL ? std::max(1, threads) : 1;
}

struct LinearWork {
    Linear product;
    int64_t panels, step, threads;
    std::atomic<int64_t> next{0};
};

void work_on_linear(void *data) {
    auto &work = *static_cast<LinearWork *>(data);
    for (;;) {
        const int64_t first = work.next.fetch_add(work.step);
        if (first >= work.panels) return;
        const int64_t last = std::min(work.panels, first + work.step);
        // In the time this takes, each other thread takes a step too.
        kernel->panels(work.product, first, last, first + work.threads * work.step);
    }
}

struct AttentionWork {
    const float *qkv;
    const int64_t *lengths;
    int64_t rows, heads, dim;
    float *out;
    std::vector<int64_t> starts;   // of the rows
    std::vector<float> received;   // [heads][tokens], empty if not asked for
    std::atomic<int64_t> next{0};
};

void work_on_attention(void *data) {
    auto &work = *static_cast<AttentionWork *>(data);
    thread_local std::vector<float> space;
    for (;;) {
        const int64_t item = work.next.fetch_add(1);
        if (item >= work.rows * work.heads) return;
        const int64_t row = work.rows - 1 - item / work.heads;  // rows are sorted: the longest first
        const int64_t head = item % work.heads, start = work.starts[row], tokens = work.lengths[row];
        const size_t needed = kernel->attention_space(tokens, work.dim);
        if (space.size() < needed) space.resize(needed);
        const int64_t width = work.heads * work.dim, all = work.starts[work.rows];
        float *received = work.received.empty() ? nullptr : work.received.data() + head * all + start;
        kernel->attend({work.qkv + start * 3 * width, work.out + start * width, received, tokens, work.heads, work.dim,
                        head},
                       space.data());
    }
}

float wrong_in_linear(int64_t m, int64_t n, int64_t k) {
    std::vector<float> values(m * k), weight(n * k), bias(n), out(m * n);
    for (int64_t i = 0; i < m * k; i++) values[i] = std::sin(0.7f * i);
    for (int64_t i = 0; i < n * k; i++) weight[i] = std::cos(0.3f * i);
    for (int64_t i = 0; i < n; i++) bias[i] = 0.1f * i;
    lessen_linear_f32(values.data(), weight.data(), bias.data(), out.data(), m, n, k, 2);
    float worst = 0;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c++) {
            double sum = bias[c];
            for (int64_t i = 0; i < k; i++) sum += double(values[r * k + i]) * weight[c * k + i];
            worst = std::max(worst, std::abs(float(sum) - out[r * n + c]));
        }
    return worst / float(k);
}

float wrong_in_attention(const std::vector<int64_t> &lengths, int64_t heads, int64_t dim) {
    int64_t tokens = 0, start = 0;
    for (int64_t length : lengths) tokens += length;
    const int64_t width = heads * dim;
    std::vector<float> qkv(tokens * 3 * width), out(tokens * width), received(tokens);
    for (size_t i = 0; i < qkv.size(); i++) qkv[i] = std::sin(0.37f * i);
    lessen_attention_f32(qkv.data(), lengths.data(), lengths.size(), heads, dim, out.data(), received.data(), 2);
    float worst = 0;
    for (int64_t length : lengths) {
        std::vector<double> gets(length);
        for (int64_t head = 0; head < heads; head++)
            for (int64_t q = 0; q < length; q++) {
                std::vector<double> weight(length);
                double sum = 0;
                for (int64_t k = 0; k < length; k++) {
                    double dot = 0;
                    for (int64_t i = 0; i < dim; i++)
                        dot += double(qkv[(start + q) * 3 * width + head * dim + i]) *
                               qkv[(start + k) * 3 * width + width + head * dim + i];
                    sum += weight[k] = std::exp(dot / std::sqrt(double(dim)));
                }
                for (int64_t k = 0; k < length; k++) gets[k] += weight[k] / sum / double(heads * length);
                for (int64_t i = 0; i < dim; i++) {
                    double mixed = 0;
                    for (int64_t k = 0; k < length; k++)
                        mixed += weight[k] / sum * qkv[(start + k) * 3 * width + 2 * width + head * dim + i];
                    worst = std::max(worst, std::abs(float(mixed) - out[(start + q) * width + head * dim + i]));
                }
            }
        for (int64_t k = 0; k < length; k++) worst = std::max(worst, std::abs(float(gets[k]) - received[start + k]));
        start += length;
    }
    return worst;
}

}  // namespace
}  // namespace lessen

using namespace lessen;

int lessen_abi(void) { return LESSEN_ABI; }

const char *lessen_isa(void) { return kernel->isa; }

int lessen_use_isa(const char *name) {
    for (int place = 0; place < 3; place++)
        if (const Kernel *found = available(place); found && !std::strcmp(found->isa, name)) {
            kernel = found;
            return 0;
        }
    return 1;
}

void lessen_use_fork(lessen_fork fork) { fork_with = fork; }

void lessen_linear_f32(const float *values, const float *weight, const float *bias, float *out, int64_t m,
                       int64_t n, int64_t k, int threads) {
    if (m <= 0 || n <= 0 || k <= 0) return;
    threads = worth(m * n * k, threads);
    const int64_t panels = (n + kernel->columns - 1) / kernel->columns;
    const int64_t step = std::max<int64_t>(1, std::min(PANELS, panels / (4 * threads)));
    LinearWork work{{values, weight, bias, out, m, n, k}, panels, step, threads};
    run(work_on_linear, &work, threads);
}

void lessen_attention_f32(const float *qkv, const int64_t *lengths, int64_t rows, int64_t heads, int64_t dim,
                          float *out, float *received, int threads) {
    AttentionWork work{qkv, lengths, rows, heads, dim, out, {0}, {}};
    int64_t multiplications = 0;
    for (int64_t row = 0; row < rows; row++) {
        work.starts.push_back(work.starts.back() + lengths[row]);
        multiplications += 2 * lengths[row] * lengths[row] * heads * dim;
    }
    const int64_t tokens = work.starts.back();
    if (received) work.received.resize(heads * tokens);
    run(work_on_attention, &work, worth(multiplications, threads));
    if (!received) return;
    for (int64_t row = 0; row < rows; row++) {
        const float share = 1.0f / float(heads * lengths[row]);
        for (int64_t t = work.starts[row]; t < work.starts[row + 1]; t++) {
            float sum = 0;
            for (int64_t head = 0; head < heads; head++) sum += work.received[head * tokens + t];
            received[t] = sum * share;
        }
    }
}

float lessen_self_check(void) {
    float worst = 0;
    for (int64_t m : {1, 2, 3, 4, 5, 7, 11})
        for (int64_t n : {1, 3, 8, 17})
            for (int64_t k : {1, 15, 16, 33, 2061}) worst = std::max(worst, wrong_in_linear(m, n, k));
    for (int64_t dim : {1, 5, 16, 32, 64, 70}) worst = std::max(worst, wrong_in_attention({1, 2, 9, 64, 77}, 2, dim));
    return worst;
}
