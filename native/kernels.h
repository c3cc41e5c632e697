// What every instruction set provides, and what the kernels are asked to do.
//
// A kernel is written once, as a template over a `Vector`: one of the structs in avx512.cpp, avx2.cpp, neon.cpp
// and scalar.cpp, which wrap a register and the few operations on it. Each of these files is compiled for its
// own instruction set; which of them is called is decided when the library is loaded (lessen.cpp).
#pragma once

#include <cstdint>

namespace lessen {

struct Linear {
    const float *values, *weight, *bias;
    float *out;
    int64_t m, n, k;
};

// One head of one row.
struct Attention {
    const float *qkv;  // of the row's first token: queries; keys and values lie `heads * dim` further each
    float *out;        // of the row's first token
    float *received;   // [tokens] of this head, or null: what each key gets, summed over queries
    int64_t tokens, heads, dim, head;
};

struct Kernel {
    const char *isa;
    int columns;  // of a panel
    // Panels first..last of a product; `after` is the panel whose weights will be wanted next.
    void (*panels)(const Linear &, int64_t first, int64_t last, int64_t after);
    // Attention within one head of one row; `space` has room for `attention_space` numbers.
    void (*attend)(const Attention &, float *space);
    int64_t (*attention_space)(int64_t tokens, int64_t dim);
};

extern const Kernel avx512, avx2, neon, scalar;

// Not std::min and std::max: a shared inline function compiled for one instruction set may be linked into the
// code of another.
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t round_up(int64_t a, int64_t step) { return (a + step - 1) / step * step; }

}  // namespace lessen
