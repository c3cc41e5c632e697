#include "amx.h"

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

// Sums of 16 columns of weights with 16 rows of values.
struct alignas(64) Sums {
    int32_t of[16][16];
};

void transpose(__m512i *lines) {
    __m512i a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(lines[2 * i], lines[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(lines[2 * i], lines[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        a[j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
        a[4 + j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xDD);
        a[8 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        a[12 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xDD);
    }
    for (int j = 0; j < 8; j++) {
        lines[j] = _mm512_shuffle_i32x4(a[j], a[8 + j], 0x88);
        lines[8 + j] = _mm512_shuffle_i32x4(a[j], a[8 + j], 0xDD);
    }
}

// Sums become rows of the result.
void finish(const Int8 &p, const Sums &sums, int64_t row, int64_t column) {
    if (column >= p.n) return;
    const int64_t count = least(rows, p.m - row);
    const auto here = static_cast<__mmask16>((1u << least(16, p.n - column)) - 1);
    __m512i lines[16];
    for (int i = 0; i < 16; i++) lines[i] = _mm512_load_si512(sums.of[i]);
    transpose(lines);
    const __m512 scales = _mm512_maskz_loadu_ps(here, p.scales + column);
    const __m512 bias = p.bias ? _mm512_maskz_loadu_ps(here, p.bias + column) : _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i++) {
        const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(p.steps[row + i]), scales);
        const __m512 line = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(lines[i]), factor), bias);
        _mm512_mask_storeu_ps(p.out + (row + i) * p.n + column, here, line);
    }
}

// 32 columns of weights, `stride` bytes apart, with 32 rows of values, or 16.
template <bool TWO>
void block(const Int8 &p, const int8_t *weight, int64_t stride, int64_t row, int64_t column) {
    const int64_t steps = p.depth / 64;
    const int8_t *values = p.values + row * p.depth, *lower = weight + rows * stride;
    _tile_zero(0);
    _tile_zero(1);
    if (TWO) {
        _tile_zero(2);
        _tile_zero(3);
    }
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

}  // namespace

bool usable() {
#if defined(__linux__)
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

void arrange(const int8_t *values, int64_t m, int64_t depth, int8_t *to) {
    for (int64_t row = 0; row < m; row += rows)
        for (int64_t i = 0; i < depth; i += 64, to += TILE) {
            __m512i lines[16];
            for (int64_t r = 0; r < rows; r++)
                lines[r] = row + r < m ? _mm512_loadu_si512(values + (row + r) * depth + i) : _mm512_setzero_si512();
            transpose(lines);
            for (int64_t r = 0; r < rows; r++) _mm512_storeu_si512(to + r * 64, lines[r]);
        }
}

void panels8(const Int8 &p, int64_t first, int64_t last, int8_t *space) {
    const Config config;
    _tile_loadconfig(&config);
    const __m512i one = _mm512_set1_epi8(1), minus_one = _mm512_set1_epi8(-1);
    for (int64_t panel = first; panel < last; panel++) {
        const int64_t column = panel * columns, count = least(columns, p.n - column);
        const bool written_out = p.signs || count < columns;
        const int8_t *weight = written_out ? space : p.weight + column * p.depth;
        if (written_out) {
            for (int64_t c = 0; c < columns; c++) {
                int8_t *to = space + c * p.depth;
                Signs word = p.signs ? p.signs + (column + c) / 8 * (p.depth / 8) + c % 8 : nullptr;
                for (int64_t i = 0; i < p.depth; i += 64) {
                    __m512i line = _mm512_setzero_si512();
                    if (c < count)
                        line = word ? _mm512_mask_blend_epi8(word[i / 8], one, minus_one)
                                    : _mm512_loadu_si512(p.weight + (column + c) * p.depth + i);
                    _mm512_storeu_si512(to + i, line);
                }
            }
        }
        int64_t row = 0;
        for (; row + rows < p.m; row += 2 * rows) block<true>(p, weight, p.depth, row, column);
        if (row < p.m) block<false>(p, weight, p.depth, row, column);
    }
    _tile_release();
}

}  // namespace lessen::tiles
