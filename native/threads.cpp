// Work that is shared among threads: those of the OpenMP runtime the caller has, or of a crew.
#include "threads.h"

#include <algorithm>

#include "crew.h"
#include "memory.h"

namespace lessen {

lessen_fork fork_with = nullptr;

namespace {

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t SMALL = 1 << 16;

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
