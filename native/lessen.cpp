// The C ABI but for what computes: versions, instruction sets, and how weights of few bits are arranged.
#include "lessen.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"
#include "threads.h"

using namespace lessen;

int lessen_abi(void) { return LESSEN_ABI; }

const char *lessen_isa(void) { return kernel->isa; }

int lessen_use_isa(const char *name) { return use(name) ? 0 : 1; }

void lessen_use_fork(lessen_fork fork) { fork_with = fork; }

int64_t lessen_whole_bytes(int64_t n, int64_t k) { return round_up(n, kernel->columns8) * round_up(k, 64); }

void lessen_arrange_whole(const int8_t *rows, int8_t *arranged, int64_t n, int64_t k) {
    if (kernel->arrange8) {
        kernel->arrange8(rows, n, k, arranged);
        return;
    }
    std::fill_n(arranged, lessen_whole_bytes(n, k), int8_t(0));
    for (int64_t c = 0; c < n; c++) std::copy_n(rows + c * k, k, arranged + c * round_up(k, 64));
}

int64_t lessen_signs_words(int64_t n, int64_t k) { return round_up(n, 8) * (round_up(k, 64) / 64); }

void lessen_arrange_signs(const uint64_t *rows, uint64_t *arranged, int64_t n, int64_t k) {
    const int64_t words = round_up(k, 64) / 64;
    for (int64_t c = 0; c < round_up(n, 8); c++)
        for (int64_t i = 0; i < words; i++)
            arranged[(c / 8 * words + i) * 8 + c % 8] = c < n ? rows[c * words + i] : 0;
}

int64_t lessen_fours_bytes(int64_t n, int64_t k) {
    return round_up(n, SIXTEEN) / SIXTEEN * (round_up(k, GROUP) / GROUP) * BLOCK;
}

void lessen_arrange_fours(const uint8_t *rows, uint8_t *arranged, int64_t n, int64_t k) {
    constexpr int64_t stored = 20;  // bytes of a group of one row: scale, minimum, 16 bytes of numbers
    const int64_t groups = round_up(k, GROUP) / GROUP;
    std::fill_n(arranged, lessen_fours_bytes(n, k), uint8_t(0));
    for (int64_t row = 0; row < n; row++)
        for (int64_t g = 0; g < groups; g++) {
            const uint8_t *from = rows + (row * groups + g) * stored;
            uint8_t *to = arranged + (row / SIXTEEN * groups + g) * BLOCK;
            const int64_t lane = row % SIXTEEN;
            std::memcpy(to + 4 * LINE + 2 * lane, from, 2);
            std::memcpy(to + 4 * LINE + 2 * (SIXTEEN + lane), from + 2, 2);
            for (int64_t i = 0; i < GROUP; i++) {
                const int number = i < 16 ? from[4 + i] & 15 : from[4 + i - 16] >> 4;
                to[i / 8 * LINE + 4 * lane + i % 4] |= static_cast<uint8_t>(i % 8 < 4 ? number : number << 4);
            }
        }
}
