// Weights of whole numbers as AVX-512 and AMX read them: in panels of 32 columns, and of each 64 places of k two blocks
// of 16 columns, in which four neighbours of a column lie side by side: [n / 32][depth / 64][2][16][16][4].
#pragma once

#include "kernels.h"
#include "transpose512.h"

#include <immintrin.h>

namespace lessen {

constexpr int64_t PANEL512 = 32;             // columns
constexpr int64_t BLOCK512 = 16 * 64;        // bytes of 16 columns
constexpr int64_t STEP512 = 2 * BLOCK512;    // bytes of a panel

static inline void arrange512(const int8_t *from, int64_t n, int64_t k, int8_t *to) {
    for (int64_t column = 0; column < n; column += PANEL512)
        for (int64_t start = 0; start < k; start += 64)
            for (int64_t c = column; c < column + PANEL512; c += 16, to += BLOCK512) {
                const __mmask64 in = k - start < 64 ? (uint64_t(1) << (k - start)) - 1 : ~uint64_t(0);
                __m512i lines[16];
                for (int64_t i = 0; i < 16; i++)
                    lines[i] = c + i < n ? _mm512_maskz_loadu_epi8(in, from + (c + i) * k + start) : _mm512_setzero_si512();
                transpose(lines);
                for (int64_t i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 64, lines[i]);
            }
}

// Signs of 64 places of 16 columns, taken off four places at a time, as whole numbers lie.
class Sixteen512 {
  public:
    // A word of each of eight columns, and of eight more.
    Sixteen512(__m512i left, __m512i right) {
        const __m512i halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        low = _mm512_permutex2var_epi32(left, halves, right);
        high = _mm512_permutex2var_epi32(left, _mm512_add_epi32(halves, _mm512_set1_epi32(1)), right);
    }
    // The signs of places 4 j to 4 j + 3, as the table of a number of 4 bits says; for j from 0 to 15 in turn.
    __m512i next(int64_t j, __m512i table) {
        if (j == 8) low = high;
        const __m512i four = _mm512_permutexvar_epi32(low, table);  // bits above the lowest four are not looked at
        low = _mm512_srli_epi32(low, 4);
        return four;
    }
    // Four bytes for each number of 4 bits: one where a bit of it is 0, another where it is 1.
    static __m512i table(int8_t positive, int8_t negative) {
        const __mmask64 bits = 0xFEDCBA9876543210;  // of the numbers 0 to 15
        return _mm512_mask_blend_epi8(bits, _mm512_set1_epi8(positive), _mm512_set1_epi8(negative));
    }

  private:
    __m512i low, high;
};

// Sixteen sums of a row become numbers of the result.
struct Columns512 {
    __mmask16 here;
    __m512 scales, bias;

    Columns512() = default;
    Columns512(const Int8 &p, int64_t column) {
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

}  // namespace lessen
