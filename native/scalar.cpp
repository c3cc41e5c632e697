// The kernels for any processor: a "register" is one number. The reference the others are checked against.
#include "table.h"

namespace lessen {
namespace {

struct Scalar : Number {
    static constexpr int lanes = 1, columns = 4, groups = 4;
    static constexpr bool squares = false;
    static Register zero() { return 0.0f; }
    static Register load(const float *from) { return *from; }
    static Register load(const Brain *from) { return widened(*from); }
    static Register load(const int8_t *from) { return widened(*from); }
    static void store(float *to, Register value) { *to = value; }
    static float total(Register sums) { return sums; }
    static float largest(Register numbers) { return numbers; }
    static Register beginning(Register numbers, int64_t count, Register rest) { return count > 0 ? numbers : rest; }
    static void hold(Register &) {}

    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        for (int c = 0; c < C; c++) out[c] = sums[c] + (before ? before[c] : 0.0f);
    }
};

struct Whole {
    using Register = int32_t;
    using Bytes = int8_t;
    static constexpr int bytes = 1, columns = 4, rows = 2, offset = 0;
    static Register zero() { return 0; }
    static Bytes load(const int8_t *from) { return *from; }
    static Bytes factor(const int8_t *from) { return *from; }
    static void hold(Bytes &) {}
    static Register add_product(Bytes a, Bytes b, Register sum) { return sum + a * b; }
    static void write_out(uint64_t word, int8_t *to) {
        for (int i = 0; i < 64; i++) to[i] = word >> i & 1 ? -1 : 1;
    }
    static int32_t total(Register sum) { return sum; }
    static void finish(const Register *sums, int32_t moved, const Scaling &by, float *out) {
        for (int c = 0; c < columns; c++) scaled(sums[c] - moved, by, c, out);
    }
};

struct Nibbles {
    struct Bytes {
        uint8_t of[4];
    };
    using Sums = int32_t;
    static constexpr int rows = 2;
    static Sums no_sums() { return 0; }
    static Bytes load(const uint8_t *from) { return {{from[0], from[1], from[2], from[3]}}; }
    static Bytes low(Bytes both) {
        for (auto &each : both.of) each &= 15;
        return both;
    }
    static Bytes high(Bytes both) {
        for (auto &each : both.of) each >>= 4;
        return both;
    }
    static Sums add_products(Bytes factors, const int8_t *four, Sums sum) {
        for (int i = 0; i < 4; i++) sum += factors.of[i] * four[i];
        return sum;
    }
    static float numbers(Sums sum) { return static_cast<float>(sum); }
    static float halves(const uint8_t *from) {
        uint16_t number;
        __builtin_memcpy(&number, from, sizeof number);
        return half(number);
    }
};

struct Bit {
    struct Counts {
        uint64_t of[8];
    };
    static constexpr int rows_of_signs = 2, eights = 1;
    static uint64_t negative(const float *row) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i++) word |= static_cast<uint64_t>(row[i] < 0) << i;
        return word;
    }
    static Counts no_counts() { return {}; }
    static Signs eight(Signs words) { return words; }
    static Counts add_differing(Counts counts, Signs words, uint64_t value) {
        for (int i = 0; i < 8; i++) counts.of[i] += __builtin_popcountll(words[i] ^ value);
        return counts;
    }
    static void store(const Counts &counts, int32_t *to) {
        for (int i = 0; i < 8; i++) to[i] = static_cast<int32_t>(counts.of[i]);
    }
    static void finish(const Counts &counts, int32_t k, const Scaling &by, float *out) {
        for (int i = 0; i < 8; i++) scaled(k - 2 * static_cast<int32_t>(counts.of[i]), by, i, out);
    }
};

}  // namespace

const Kernel scalar = kernel_of<Scalar, Whole, Bit, Nibbles>("scalar");

}  // namespace lessen
