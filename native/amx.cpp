#include "amx.h"
#include "arranged512.h"

#include <immintrin.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lessen::tiles {
namespace {

struct alignas(64) Config {
    uint8_t palette = 1, start = 0, reserved[14] = {0};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The tiles of sums: 0 and 1 of 16 rows, 2 and 3 of 16 more.
template <bool TWO>
void clear() {
    _tile_zero(0);
    _tile_zero(1);
    if (TWO) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

// Sums of 32 rows with 32 columns on their way to the result. Making numbers of them takes as long as the tiles take
// to multiply, and needs other parts of the processor: it is done a few rows at a time while the next block multiplies.
class Leaving {
  public:
    explicit Leaving(const Int8 &product) : p(product) {}

    // Takes the sums out of tiles 0 and 1, and 2 and 3 if there are two times 16 rows; none may be left.
    void take(int64_t from, int64_t column, bool two) {
        _tile_stored(0, sums[0][0], 64);
        _tile_stored(1, sums[1][0], 64);
        if (two) {
            _tile_stored(2, sums[0][rows], 64);
            _tile_stored(3, sums[1][rows], 64);
        }
        halves[0] = Columns512(p, column), halves[1] = Columns512(p, column + rows);
        row = from, first = column, next = 0, end = least(two ? 2 * rows : rows, p.m - from);
    }
    // Writes so many rows, or those there are.
    void write(int64_t count) {
        const int64_t last = least(next + count, end), apart = p.n;
        const Columns512 left = halves[0], right = halves[1];  // copies: stores could change what is reached by pointers
        const float *steps = p.steps + row;
        float *out = p.out + row * apart + first;
        for (int64_t i = next; i < last; i++) {
            left.write(_mm512_load_si512(sums[0][i]), steps[i], out + i * apart);
            right.write(_mm512_load_si512(sums[1][i]), steps[i], out + i * apart + rows);
        }
        next = last;
    }

  private:
    alignas(64) int32_t sums[2][2 * rows][16];
    Columns512 halves[2];
    const Int8 p;
    int64_t row = 0, first = 0, next = 0, end = 0;
};

// Weights of panels, one step after the other, a step being 64 of k of 32 columns: two tiles.

// They lie in memory as tiles.
class Numbers {
  public:
    Numbers(const Int8 &p, int64_t first, int64_t) : here(p.weight + first * PANEL512 * p.depth) {}

    const int8_t *next() {
        const int8_t *step = here;
        here += STEP512;
        return step;
    }
    void write(int) {}

  private:
    const int8_t *here;
};

// They are signs, written out as -1 and 1 just before they are multiplied: all of a panel, beside the values of 32
// rows, would not fit the first cache. What is written is read two steps later, when the stores are done.
class Signs8 {
  public:
    Signs8(const Int8 &p, int64_t first, int64_t last)
        : signs(p.signs), words(p.depth / 64), eights((p.n + 7) / 8), panel(first), end(last) {
        for (int64_t i = 0; i < AHEAD; i++) write(0), write(1);
    }

    const int8_t *next() {
        asm volatile("" ::: "memory");  // compilers do not know that loading a tile reads memory
        const int8_t *step = ring + read * STEP512;
        read = read == AHEAD ? 0 : read + 1;
        return step;
    }
    // Half of a later step: four neighbours of each of 16 columns side by side, four bits looked up at once.
    void write(int half) {
        if (panel < end) sixteen(panel * 4 + half * 2, ring + written * STEP512 + half * BLOCK512);
        if (half == 0) return;
        written = written == AHEAD ? 0 : written + 1;
        if (++word == words) word = 0, panel++;
    }

  private:
    static constexpr int64_t AHEAD = 2;

    void sixteen(int64_t eight, int8_t *to) const {
        const __m512i table = Sixteen512::table(1, -1);
        Sixteen512 signs(of(eight), of(eight + 1));
#pragma GCC unroll 16
        for (int64_t j = 0; j < 16; j++) _mm512_store_si512(to + j * 64, signs.next(j, table));
    }
    // A word of each of eight columns; beyond the last, of any.
    __m512i of(int64_t eight) const {
        return _mm512_loadu_si512(signs + (least(eight, eights - 1) * words + word) * 8);
    }

    alignas(64) int8_t ring[(AHEAD + 1) * STEP512];
    const Signs signs;
    const int64_t words, eights;
    int64_t panel, end, word = 0, read = 0, written = 0;
};

// A panel with 32 rows of values, or 16. What needs other parts of the processor than tiles stands between their
// multiplications: signs of later steps, and sums of the block before.
template <bool TWO, class Weights>
void block(const Int8 &p, Weights &weights, int64_t row, int64_t column, Leaving &leaving) {
    const int64_t steps = p.depth / 64, each = (2 * rows + steps - 1) / steps;
    const int8_t *upper = p.values + row * p.depth, *lower = upper + rows * p.depth;
    clear<TWO>();
    for (int64_t step = 0; step < steps; step++) {
        const int8_t *weight = weights.next();
        _tile_loadd(6, weight, 64);
        _tile_loadd(7, weight + BLOCK512, 64);
        _tile_loadd(4, upper + step * 64, p.depth);
        _tile_dpbssd(0, 4, 6);
        weights.write(0);
        _tile_dpbssd(1, 4, 7);
        if (TWO) {
            _tile_loadd(5, lower + step * 64, p.depth);
            _tile_dpbssd(2, 5, 6);
        }
        weights.write(1);
        if (TWO) _tile_dpbssd(3, 5, 7);
        leaving.write(each);
    }
    leaving.take(row, column, TWO);
}

// All panels with some rows before the next rows: their values stay in the first cache.
template <class Weights>
void blocks(const Int8 &p, int64_t first, int64_t last) {
    Leaving leaving(p);
    for (int64_t row = 0; row < p.m; row += 2 * rows) {
        Weights weights(p, first, last);
        for (int64_t panel = first; panel < last; panel++)
            if (row + rows < p.m)
                block<true>(p, weights, row, panel * PANEL512, leaving);
            else
                block<false>(p, weights, row, panel * PANEL512, leaving);
    }
    leaving.write(2 * rows);
}

}  // namespace

bool usable() {
#if defined(__linux__)
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

void panels8(const Int8 &p, int64_t first, int64_t last, int8_t *) {
    static const Config config;  // static: compilers believe that loading it reads its first word alone
    _tile_loadconfig(&config);
    if (p.signs)
        blocks<Signs8>(p, first, last);
    else
        blocks<Numbers>(p, first, last);
    _tile_release();
}

}  // namespace lessen::tiles
