// Memory that is kept, and what is said where there is none.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <new>

#include "kernels.h"

namespace lessen {

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
