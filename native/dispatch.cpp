// Instruction sets from best to plainest, and the fork of the OpenMP runtime the caller has.
#include "dispatch.h"

#include "crew.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#if defined(LESSEN_X86)
#include "amx.h"
#endif

namespace lessen {
namespace {

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t SMALL = 1 << 16;
constexpr int SETS = 4;

#if defined(LESSEN_X86)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vpopcntdq");
}
#endif

// Instruction sets from best to plainest; null where this processor lacks one.
const Kernel *available(int place) {
#if defined(LESSEN_X86)
    if (place == 0 && has_avx512() && tiles::usable()) return &amx;
    if (place == 1 && has_avx512()) return &avx512;
    if (place == 2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) return &avx2;
#elif defined(LESSEN_NEON)
    if (place == 0) return &neon;
#endif
    return place == SETS - 1 ? &scalar : nullptr;
}

const Kernel *best() {
    for (int place = 0; place < SETS; place++)
        if (const Kernel *kernel = available(place)) return kernel;
    return &scalar;
}

}  // namespace

const Kernel *kernel = best();
lessen_fork fork_with = nullptr;

bool use(const char *isa) {
    for (int place = 0; place < SETS; place++)
        if (const Kernel *found = available(place); found && !std::strcmp(found->isa, isa)) {
            kernel = found;
            return true;
        }
    return false;
}

namespace {

// Work of several threads, out of which no exception may come.
struct Guarded {
    void (*work)(void *);
    void *data;
    std::atomic<bool> failed{false};
};

void guarded(void *data) {
    auto &all = *static_cast<Guarded *>(data);
    if (result_of([&] { all.work(all.data); })) all.failed.store(true);
}

}  // namespace

void run(void (*work)(void *), void *data, int threads) {
    if (threads <= 1) return work(data);
    Guarded all{work, data};
    if (!shared(guarded, &all)) fork_with(guarded, &all, static_cast<unsigned>(threads), 0);
    if (all.failed.load()) throw std::bad_alloc();
}

int worth(int64_t multiplications, int threads) {
    return fork_with && multiplications >= SMALL ? std::max(1, threads) : 1;
}

}  // namespace lessen
