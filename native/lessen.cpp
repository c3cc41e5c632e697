// The C ABI but for what computes: versions, instruction sets, and how signs are arranged.
#include "lessen.h"

#include "dispatch.h"

using namespace lessen;

int lessen_abi(void) { return LESSEN_ABI; }

const char *lessen_isa(void) { return kernel->isa; }

int lessen_use_isa(const char *name) { return use(name) ? 0 : 1; }

void lessen_use_fork(lessen_fork fork) { fork_with = fork; }

int64_t lessen_depth(int64_t k) { return round_up(k, 64); }

int64_t lessen_signs_words(int64_t n, int64_t k) { return round_up(n, 8) * (round_up(k, 64) / 64); }

void lessen_arrange_signs(const uint64_t *rows, uint64_t *arranged, int64_t n, int64_t k) {
    const int64_t words = round_up(k, 64) / 64;
    for (int64_t c = 0; c < round_up(n, 8); c++)
        for (int64_t i = 0; i < words; i++)
            arranged[(c / 8 * words + i) * 8 + c % 8] = c < n ? rows[c * words + i] : 0;
}
