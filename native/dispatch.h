// Which instruction set computes, and whose threads.
#pragma once

#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>

#include "kernels.h"
#include "lessen.h"

namespace lessen {

// The instruction set in use: the best one at first.
extern const Kernel *kernel;

// Take the set of this name; whether this processor has it.
bool use(const char *isa);

// Whose threads; null: the caller's only.
extern lessen_fork fork_with;

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

// Threads that so many multiplications are worth.
int worth(int64_t multiplications, int threads);

inline Norm norm_of(const lessen_norm &norm) { return {norm.weight, norm.bias, norm.eps}; }

// A bias of scores as a head reads it: at no distance, and how far apart heads lie.
struct Near {
    const float *bias = nullptr;
    int64_t apart = 0;
    const int64_t *of_bias = nullptr;

    Near(const lessen_bias *by, const int64_t *of_bias) : of_bias(of_bias) {
        if (by) bias = by->by_distance + by->longest - 1, apart = 2 * by->longest - 1;
    }
    const float *of(int64_t head) const { return bias ? bias + (of_bias ? of_bias[head] : head) * apart : nullptr; }
};

// lessen_attention_f32; heads of a bias are those of `of_bias`, or if that is null the attention's.
void attention_of(const lessen_heads &heads, const int64_t *lengths, int64_t rows, const lessen_bias *bias,
                  const int64_t *of_bias, float *out, float *received, int64_t last, int threads);

// out = values . matrix^T, whatever the kind of the matrix.
void product_of(const lessen_matrix &matrix, const float *values, float *out, int64_t m, int threads);

// What a C function does, and what it returns: 0, or 1 where memory ran out. No exception may leave it.
template <class F>
int result_of(const F &work) {
    try {
        work();
    } catch (const std::exception &) {
        return 1;
    }
    return 0;
}

// Memory kept from call to call, at the start of a cache line: wide loads across two lines take twice as long. Much
// more than is asked for is given back: a long prompt needs a thousand times the room of the tokens after it.
template <class T>
class Space {
  public:
    T *of(int64_t count) {
        if (count > room || (room > LARGE && count < room / 8)) {
            std::free(first);
            first = nullptr, room = 0;
            first = static_cast<T *>(std::aligned_alloc(64, round_up(count * sizeof(T), 64)));
            if (!first) throw std::bad_alloc();
            room = count;
        }
        return first;
    }
    int64_t held() const { return room; }
    ~Space() { std::free(first); }

  private:
    static constexpr int64_t LARGE = (1 << 21) / sizeof(T);
    T *first = nullptr;
    int64_t room = 0;
};

}  // namespace lessen
