// The kernels for ARM with NEON: 4 numbers in a register, 32 registers.
#include "table.h"

#include <arm_neon.h>

namespace lessen {
namespace {

struct Neon {
    using Register = float32x4_t;
    static constexpr int lanes = 4, columns = 8, groups = 4;
    static constexpr bool squares = false;
    static Register zero() { return vdupq_n_f32(0.0f); }
    static Register load(const float *from) { return vld1q_f32(from); }
    static Register load(const Brain *from) {
        return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(from)), 16));
    }
    static Register load(const int8_t *from) {
        uint32_t four;
        __builtin_memcpy(&four, from, sizeof four);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
    }
    static Register broadcast(float value) { return vdupq_n_f32(value); }
    static void store(float *to, Register value) { vst1q_f32(to, value); }
    static Register add(Register a, Register b) { return vaddq_f32(a, b); }
    static Register larger(Register a, Register b) { return vmaxq_f32(a, b); }
    static Register multiply(Register a, Register b) { return vmulq_f32(a, b); }
    static float total(Register sums) { return vaddvq_f32(sums); }
    static float largest(Register numbers) { return vmaxvq_f32(numbers); }
    static Register beginning(Register numbers, int64_t count, Register rest) {
        constexpr uint32_t lanes[4] = {0, 1, 2, 3};
        return vbslq_f32(vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(static_cast<uint32_t>(count))), numbers, rest);
    }
    static Register times_power(Register numbers, Register whole) {
        const int32x4_t power = vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127));
        return vmulq_f32(numbers, vreinterpretq_f32_s32(vshlq_n_s32(power, 23)));
    }
    static void hold(Register &value) { asm("" : "+w"(value)); }
    static Register add_product(Register a, Register b, Register sum) { return vfmaq_f32(sum, a, b); }

    template <int C>
    static void finish(const Register *sums, const float *before, float *out) {
        for (int c = 0; c < C; c++) out[c] = vaddvq_f32(sums[c]) + (before ? before[c] : 0.0f);
    }
};

struct Whole {
    using Register = int32x4_t;
    using Bytes = int8x16_t;
    static constexpr int bytes = 16, columns = 4, rows = 2, offset = 0;
    static Register zero() { return vdupq_n_s32(0); }
    static Bytes load(const int8_t *from) { return vld1q_s8(from); }
    static Bytes factor(const int8_t *from) { return vld1q_s8(from); }
    static void hold(Bytes &value) { asm("" : "+w"(value)); }
    static Register add_product(Bytes a, Bytes b, Register sum) {
        // Two products of numbers up to 127 fit 16 bits.
        const int16x8_t both = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_high_s8(a), vget_high_s8(b));
        return vpadalq_s16(sum, both);
    }
    static void write_out(uint64_t word, int8_t *to) {
        const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
        for (int i = 0; i < 4; i++) {
            const uint8x16_t bytes = vcombine_u8(vdup_n_u8(word >> (16 * i) & 255), vdup_n_u8(word >> (16 * i + 8) & 255));
            vst1q_s8(to + 16 * i, vbslq_s8(vtstq_u8(bytes, bit), vdupq_n_s8(-1), vdupq_n_s8(1)));
        }
    }
    static int32_t total(Register sum) { return vaddvq_s32(sum); }
    static void finish(const Register *sums, int32_t moved, const Scaling &by, float *out) {
        const int32x4_t line = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
        four(vsubq_s32(line, vdupq_n_s32(moved)), by, 0, out);
    }
    // Four numbers of the result.
    static void four(int32x4_t sums, const Scaling &by, int64_t column, float *out) {
        const float32x4_t factor = vmulq_n_f32(vld1q_f32(by.scales + column), by.step);
        const float32x4_t line = vmulq_f32(vcvtq_f32_s32(sums), factor);
        vst1q_f32(out + column, by.bias ? vaddq_f32(line, vld1q_f32(by.bias + column)) : line);
    }
};

struct Nibbles {
    struct Sums {
        int16x8_t of[2];  // pairs of two rows each: eight products up to 15 * 127 fit 16 bits
    };
    using Bytes = int8x16_t;
    static constexpr int rows = 4;
    static Sums no_sums() { return {{vdupq_n_s16(0), vdupq_n_s16(0)}}; }
    static uint8x16_t load(const uint8_t *from) { return vld1q_u8(from); }
    static Bytes low(uint8x16_t both) { return vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))); }
    static Bytes high(uint8x16_t both) { return vreinterpretq_s8_u8(vshrq_n_u8(both, 4)); }
    static Sums add_products(Bytes factors, const int8_t *four, Sums sums) {
        int32_t values;
        __builtin_memcpy(&values, four, sizeof values);
        const int8x8_t twice = vreinterpret_s8_s32(vdup_n_s32(values));
        return {{vmlal_s8(sums.of[0], vget_low_s8(factors), twice), vmlal_s8(sums.of[1], vget_high_s8(factors), twice)}};
    }
    static float32x4_t numbers(const Sums &sums) {
        return vcvtq_f32_s32(vpaddq_s32(vpaddlq_s16(sums.of[0]), vpaddlq_s16(sums.of[1])));
    }
    static float32x4_t halves(const uint8_t *from) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from)));
    }
};

struct Bit {
    struct Counts {
        uint32x4_t of[4];
    };
    struct Words {
        uint64x2_t of[4];
    };
    static constexpr int rows_of_signs = 2, eights = 1;
    static uint64_t negative(const float *row) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i++) word |= static_cast<uint64_t>(row[i] < 0) << i;
        return word;
    }
    static Counts no_counts() { return {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)}; }
    static Words eight(Signs words) {
        return {vld1q_u64(words), vld1q_u64(words + 2), vld1q_u64(words + 4), vld1q_u64(words + 6)};
    }
    static Counts add_differing(Counts counts, const Words &words, uint64_t value) {
        for (int i = 0; i < 4; i++) {
            const uint8x16_t differing = vreinterpretq_u8_u64(veorq_u64(words.of[i], vdupq_n_u64(value)));
            counts.of[i] = vpadalq_u16(counts.of[i], vpaddlq_u8(vcntq_u8(differing)));
        }
        return counts;
    }
    static void store(const Counts &counts, int32_t *to) {
        for (int i = 0; i < 4; i++) {
            const uint64x2_t two = vpaddlq_u32(counts.of[i]);
            to[2 * i] = static_cast<int32_t>(vgetq_lane_u64(two, 0));
            to[2 * i + 1] = static_cast<int32_t>(vgetq_lane_u64(two, 1));
        }
    }
    static void finish(const Counts &counts, int32_t k, const Scaling &by, float *out) {
        for (int i = 0; i < 2; i++) {
            const uint32x4_t differ = vpaddq_u32(counts.of[2 * i], counts.of[2 * i + 1]);
            const int32x4_t twice = vreinterpretq_s32_u32(vshlq_n_u32(differ, 1));
            Whole::four(vsubq_s32(vdupq_n_s32(k), twice), by, 4 * i, out);
        }
    }
};

}  // namespace

const Kernel neon = kernel_of<Neon, Whole, Bit, Nibbles>("neon");

}  // namespace lessen
