// How work is shared among threads: the caller's, or those of a crew (crew.h).
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels.h"
#include "lessen.h"

namespace lessen {

// Whose threads; null: the caller's only.
extern lessen_fork fork_with;

// Threads that so many multiplications are worth.
int worth(int64_t multiplications, int threads);

// Run work(data) on so many threads, those of this thread's crew if it leads one (crew.h), or here if that is not
// worth it. Any number of threads may take part, and any of them may find that nothing is left. Where one of them had
// no memory, std::bad_alloc is thrown here.
void run(void (*work)(void *), void *data, int threads);

// Do piece(first, last) for all of 0..all, a step at a time, on so many threads: each takes the next one there is.
template <class Piece>
void in_turns(int64_t all, int64_t step, int threads, const Piece &piece) {
    struct Turns {
        const Piece &piece;
        int64_t all, step;
        std::atomic<int64_t> next{0};
    } turns{piece, all, step, {}};
    run(
        [](void *data) {
            auto &turns = *static_cast<Turns *>(data);
            for (;;) {
                const int64_t first = turns.next.fetch_add(turns.step);
                if (first >= turns.all) return;
                turns.piece(first, least(turns.all, first + turns.step));
            }
        },
        &turns, threads);
}

}  // namespace lessen
