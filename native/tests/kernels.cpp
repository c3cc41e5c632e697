// Every kernel this processor has, against a plain loop; exits 1 and says which differs.
#include <cstdio>
#include <thread>
#include <vector>

#include "lessen.h"

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

int main() {
    int wrong = 0;
    for (const char *isa : {"amx", "avx512", "avx2", "neon", "scalar"}) {
        if (lessen_use_isa(isa)) continue;
        for (lessen_fork fork : {lessen_fork(nullptr), lessen_fork(threads)}) {
            lessen_use_fork(fork);
            const float difference = lessen_self_check(1);
            const bool good = difference <= 1e-6f && same_alone();
            std::printf("%-7s %s: %s (largest difference %.2g)\n", isa, fork ? "threads" : "alone  ",
                        good ? "ok" : "WRONG", difference);
            wrong += !good;
        }
    }
    if (!lessen_use_isa("no such set")) wrong++;
    return wrong != 0;
}
