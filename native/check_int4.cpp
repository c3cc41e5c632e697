// Whether products with weights of 4 bits compute what plain loops do over what they say they compute.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

// Scales and minimums as float16, written out by hand: 0.25, 0.0625 + 2^-14, the least subnormal, -0.5, -1.875.
constexpr uint16_t HALVES[] = {0x3400, 0x2C01, 0x0001, 0xB800, 0xBF80};
constexpr double NUMBERS[] = {0.25, 0.0625 + 0x1p-14, 0x1p-24, -0.5, -1.875};

}  // namespace

float wrong_in_fours(int64_t m, int64_t n, int64_t k) {
    const int64_t groups = (k + 31) / 32;
    std::vector<float> values(m * k), bias(n), out(m * n);
    std::vector<uint8_t> rows(n * groups * 20), room(lessen_fours_bytes(n, k) + 64);
    for (int64_t i = 0; i < m * k; i++) values[i] = std::sin(0.7f * i);
    for (int64_t c = 0; c < n; c++) bias[c] = 0.1f * c;
    for (int64_t i = 0; i < n * groups; i++) {
        std::memcpy(rows.data() + i * 20, &HALVES[i % 3], 2);
        std::memcpy(rows.data() + i * 20 + 2, &HALVES[i % 5], 2);
        for (int64_t j = 0; j < 16; j++) rows[i * 20 + 4 + j] = uint8_t(i * 37 + j * 91 + 5);
    }
    uint8_t *arranged = room.data() + 64 - reinterpret_cast<uintptr_t>(room.data()) % 64;
    lessen_arrange_fours(rows.data(), arranged, n, k);
    lessen_linear_w4a8(values.data(), arranged, bias.data(), out.data(), m, n, k, 2);
    float worst = 0;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c++) {
            double expected = bias[c], sizes = std::abs(bias[c]) + 1;
            for (int64_t g = 0; g < groups; g++) {
                const uint8_t *bytes = rows.data() + (c * groups + g) * 20;
                const double scale = NUMBERS[(c * groups + g) % 3], minimum = NUMBERS[(c * groups + g) % 5];
                const float *row = values.data() + r * k + g * 32;
                const int64_t count = std::min<int64_t>(32, k - g * 32);
                float most = 0;
                for (int64_t i = 0; i < count; i++) most = std::max(most, std::abs(row[i]));
                const float inverse = most > 0 ? 127.0f / most : 0.0f;
                for (int64_t i = 0; i < count; i++) {
                    const int number = i < 16 ? bytes[4 + i] & 15 : bytes[4 + i - 16] >> 4;
                    const double value = std::nearbyint(row[i] * inverse) * double(most / 127.0f);
                    expected += value * (scale * number + minimum);
                    sizes += std::abs(value) * (scale * number + std::abs(minimum));
                }
            }
            worst = worst_of({worst, float(std::abs(expected - out[r * n + c]) / sizes)});
        }
    return worst;
}
