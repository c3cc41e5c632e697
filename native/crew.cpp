// One thread that leads, and others that help: who is where is said by a few atomic numbers.
#include "crew.h"

#include <atomic>
#include <thread>

#include "memory.h"
#include "threads.h"

#if defined(LESSEN_X86)
#include <immintrin.h>
#endif

namespace lessen {
namespace {

// Rounds of waiting after which the processor is offered to others: some tens of microseconds.
constexpr int ROUNDS = 1024;

struct Crew {
    void (*task)(void *);
    void *data;
    std::atomic<bool> led{false}, over{false}, failed{false};
    // What is handed out, and how many pieces were before: written while nobody is inside.
    void (*work)(void *) = nullptr;
    void *of_work = nullptr;
    alignas(64) std::atomic<int64_t> turn{0};
    std::atomic<bool> open{false};
    alignas(64) std::atomic<int> inside{0};
};

thread_local Crew *leading = nullptr;

void wait(int &rounds) {
#if defined(LESSEN_X86)
    _mm_pause();
#elif defined(LESSEN_NEON)
    asm volatile("yield");
#endif
    if (++rounds % ROUNDS == 0) std::this_thread::yield();
}

// Who is inside before it finds the work open is waited for; who comes later finds it closed. A helper that goes in for
// the last turn may find this one's work open, do it, and enter it again when it sees the new turn: work that has nothing
// left must take that.
void help(Crew &crew) {
    int64_t seen = 0;
    for (int rounds = 0; !crew.over.load();) {
        if (crew.turn.load() == seen) {
            wait(rounds);
            continue;
        }
        crew.inside.fetch_add(1);
        seen = crew.turn.load();
        if (crew.open.load()) crew.work(crew.of_work);
        crew.inside.fetch_sub(1);
        rounds = 0;
    }
}

void join(void *data) {
    auto &crew = *static_cast<Crew *>(data);
    if (crew.led.exchange(true)) {
        help(crew);
        return;
    }
    leading = &crew;
    if (result_of([&] { crew.task(crew.data); })) crew.failed.store(true);
    leading = nullptr;
    crew.over.store(true);
}

}  // namespace

void together(void (*task)(void *), void *data, int threads) {
    if (threads <= 1 || !fork_with) {
        task(data);
        return;
    }
    Crew crew{};
    crew.task = task, crew.data = data;
    fork_with(join, &crew, static_cast<unsigned>(threads), 0);
    if (crew.failed.load()) throw std::bad_alloc();
}

bool shared(void (*work)(void *), void *data) {
    if (!leading) return false;
    Crew &crew = *leading;
    crew.work = work, crew.of_work = data;
    crew.open.store(true);
    crew.turn.fetch_add(1);
    work(data);
    crew.open.store(false);
    for (int rounds = 0; crew.inside.load();) wait(rounds);
    return true;
}

}  // namespace lessen
