// The C ABI: which kernel, how many threads, and whether it computes what a plain loop does.
#include "lessen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "linear.h"

namespace lessen {
namespace {

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t SMALL = 1 << 16;
// Panels a thread takes at a time: few enough that a busy core does not keep the others waiting.
constexpr int64_t PANELS = 8;

const Kernel *available(int place) {
#if defined(LESSEN_X86)
    if (place == 0 && __builtin_cpu_supports("avx512f")) return &avx512;
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

struct Work {
    Linear product;
    int64_t panels, step, others;  // others: threads beside one's own
    std::atomic<int64_t> next;
};

void work_on(void *data) {
    Work &work = *static_cast<Work *>(data);
    for (;;) {
        const int64_t first = work.next.fetch_add(work.step);
        if (first >= work.panels) return;
        const int64_t last = std::min(work.panels, first + work.step);
        // In the time this takes, each other thread takes a step too.
        kernel->panels(work.product, first, last, first + (work.others + 1) * work.step);
    }
}

float difference(int64_t m, int64_t n, int64_t k) {
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
    const int64_t panels = (n + kernel->columns - 1) / kernel->columns;
    const int64_t step = std::max<int64_t>(1, std::min(PANELS, panels / (4 * std::max(1, threads))));
    const bool alone = threads <= 1 || !fork_with || m * n * k < SMALL;
    Work work{{values, weight, bias, out, m, n, k}, panels, step, alone ? 0 : threads - 1, {0}};
    if (!alone)
        fork_with(work_on, &work, static_cast<unsigned>(threads), 0);
    else
        work_on(&work);
}

float lessen_self_check(void) {
    float worst = 0;
    for (int64_t m : {1, 2, 3, 4, 5, 7, 11})
        for (int64_t n : {1, 3, 8, 17})
            for (int64_t k : {1, 15, 16, 33, 2061}) worst = std::max(worst, difference(m, n, k) / float(k));
    return worst;
}
