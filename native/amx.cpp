#include "amx.h"
#include "transpose512.h"

#include <immintrin.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lessen::tiles {
namespace {

constexpr int64_t TILE = 1024;  // bytes

struct alignas(64) Config {
    uint8_t palette = 1, start = 0, reserved[14] = {0};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Sums of 16 rows of one side with 16 of the other.
struct alignas(64) Sums {
    int32_t of[16][16];
};

// Sixteen sums of a row become numbers of the result.
struct Columns {
    __mmask16 here;
    __m512 scales, bias;

    Columns() = default;
    Columns(const Int8 &p, int64_t column) {
        here = column < p.n ? static_cast<__mmask16>((1u << least(16, p.n - column)) - 1) : 0;
        scales = _mm512_maskz_loadu_ps(here, p.scales + column);
        bias = p.bias ? _mm512_maskz_loadu_ps(here, p.bias + column) : _mm512_setzero_ps();
    }
    void write(__m512i sums, float step, float *out) const {
        const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(step), scales);
        const __m512 line = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), factor), bias);
        _mm512_mask_storeu_ps(out, here, line);
    }
};

// Sums become rows of the result, where weights were the left side.
void finish(const Int8 &p, const Sums &sums, int64_t row, int64_t column) {
    if (column >= p.n) return;
    const int64_t count = least(rows, p.m - row);
    __m512i lines[16];
    for (int i = 0; i < 16; i++) lines[i] = _mm512_load_si512(sums.of[i]);
    transpose(lines);
    const Columns columns(p, column);
    for (int64_t i = 0; i < count; i++) columns.write(lines[i], p.steps[row + i], p.out + (row + i) * p.n + column);
}

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

// 32 columns of weights, `stride` bytes apart, with 32 rows of values, or 16.
template <bool TWO>
void block(const Int8 &p, const int8_t *weight, int64_t stride, int64_t row, int64_t column) {
    const int64_t steps = p.depth / 64;
    const int8_t *values = p.values + row * p.depth, *lower = weight + rows * stride;
    clear<TWO>();
    for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(4, weight + step * 64, stride);
        _tile_loadd(5, lower + step * 64, stride);
        _tile_loadd(6, values + step * TILE, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 5, 6);
        if (TWO) {
            _tile_loadd(7, values + (steps + step) * TILE, 64);
            _tile_dpbssd(2, 4, 7);
            _tile_dpbssd(3, 5, 7);
        }
    }
    Sums sums[4];
    _tile_stored(0, sums[0].of, 64);
    _tile_stored(1, sums[1].of, 64);
    if (TWO) {
        _tile_stored(2, sums[2].of, 64);
        _tile_stored(3, sums[3].of, 64);
    }
    for (int i = 0; i < (TWO ? 4 : 2); i++) finish(p, sums[i], row + i / 2 * rows, column + i % 2 * rows);
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
        halves[0] = Columns(p, column), halves[1] = Columns(p, column + rows);
        row = from, first = column, next = 0, end = least(two ? 2 * rows : rows, p.m - from);
    }
    // Writes so many rows, or those there are.
    void write(int64_t count) {
        const int64_t last = least(next + count, end), apart = p.n;
        const Columns left = halves[0], right = halves[1];  // copies: stores could change what is reached by pointers
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
    Columns halves[2];
    const Int8 p;
    int64_t row = 0, first = 0, next = 0, end = 0;
};

// 32 columns of weights in tiles, with 32 rows of values, or 16. Here values are the left side, so that sums come as
// rows of the result and need not be transposed.
template <bool TWO>
void signed_block(const Int8 &p, const int8_t *weight, int64_t row, int64_t column, Leaving &leaving) {
    const int64_t steps = p.depth / 64, each = (2 * rows + steps - 1) / steps;
    const int8_t *values = p.values + row * p.depth, *right = weight + steps * TILE;
    clear<TWO>();
    for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(6, weight + step * TILE, 64);
        _tile_loadd(7, right + step * TILE, 64);
        _tile_loadd(4, values + step * TILE, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        if (TWO) {
            _tile_loadd(5, values + (steps + step) * TILE, 64);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
        leaving.write(each);
    }
    leaving.take(row, column, TWO);
}

// The signs of 16 columns as -1 and 1, in tiles: four neighbours of each column side by side. Four bits of a column
// are looked up at once.
void write_tiles(const Int8 &p, int64_t column, int8_t *to) {
    const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i high_halves = _mm512_add_epi32(low_halves, _mm512_set1_epi32(1));
    const __mmask64 negative = 0xFEDCBA9876543210;  // the bits of the numbers 0 to 15
    const __m512i four = _mm512_mask_blend_epi8(negative, _mm512_set1_epi8(1), _mm512_set1_epi8(-1));
    const int64_t words = p.depth / 64;
    Signs left = p.signs + column / 8 * words * 8, right = column + 8 < p.n ? left + words * 8 : left;
    for (int64_t i = 0; i < words; i++, to += TILE) {
        const __m512i of_left = _mm512_loadu_si512(left + i * 8), of_right = _mm512_loadu_si512(right + i * 8);
        const __m512i low = _mm512_permutex2var_epi32(of_left, low_halves, of_right);
        const __m512i high = _mm512_permutex2var_epi32(of_left, high_halves, of_right);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {  // bits above the lowest four are not looked at
            _mm512_storeu_si512(to + j * 64, _mm512_permutexvar_epi32(_mm512_srli_epi32(low, 4 * j), four));
            _mm512_storeu_si512(to + (8 + j) * 64, _mm512_permutexvar_epi32(_mm512_srli_epi32(high, 4 * j), four));
        }
    }
}

void signed_panels(const Int8 &p, int64_t first, int64_t last, int8_t *space) {
    Leaving leaving(p);
    for (int64_t panel = first; panel < last; panel++) {
        const int64_t column = panel * columns;
        write_tiles(p, column, space);
        if (column + rows < p.n) write_tiles(p, column + rows, space + rows * p.depth);
        int64_t row = 0;
        for (; row + rows < p.m; row += 2 * rows) signed_block<true>(p, space, row, column, leaving);
        if (row < p.m) signed_block<false>(p, space, row, column, leaving);
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

void arrange(const int8_t *values, int64_t m, int64_t depth, bool signs, int8_t *to) {
    for (int64_t row = 0; row < m; row += rows)
        for (int64_t i = 0; i < depth; i += 64, to += TILE) {
            __m512i lines[16];
            for (int64_t r = 0; r < rows; r++)
                lines[r] = row + r < m ? _mm512_loadu_si512(values + (row + r) * depth + i) : _mm512_setzero_si512();
            if (!signs) transpose(lines);
            for (int64_t r = 0; r < rows; r++) _mm512_storeu_si512(to + r * 64, lines[r]);
        }
}

void panels8(const Int8 &p, int64_t first, int64_t last, int8_t *space) {
    static const Config config;  // static: compilers believe that loading it reads its first word alone
    _tile_loadconfig(&config);
    if (p.signs) signed_panels(p, first, last, space);
    for (int64_t panel = p.signs ? last : first; panel < last; panel++) {
        const int64_t column = panel * columns, count = least(columns, p.n - column);
        const int8_t *weight = p.weight + column * p.depth;
        if (count < columns) {
            for (int64_t c = 0; c < columns; c++)
                for (int64_t i = 0; i < p.depth; i += 64) {
                    const __m512i line = c < count ? _mm512_loadu_si512(weight + c * p.depth + i) : _mm512_setzero_si512();
                    _mm512_storeu_si512(space + c * p.depth + i, line);
                }
            weight = space;
        }
        int64_t row = 0;
        for (; row + rows < p.m; row += 2 * rows) block<true>(p, weight, p.depth, row, column);
        if (row < p.m) block<false>(p, weight, p.depth, row, column);
    }
    _tile_release();
}

}  // namespace lessen::tiles
