// What every instruction set provides, and what the kernels are asked to do.
//
// A kernel is written once, as a template over a `Vector`: one of the structs in avx512.cpp, avx2.cpp, neon.cpp
// and scalar.cpp, which wrap a register and the few operations on it. Each of these files is compiled for its
// own instruction set; which of them is called is decided when the library is loaded (dispatch.cpp).
#pragma once

#include <cstdint>

#include "lessen.h"

// For members through which sums in registers are reached: of another function, they would have to lie in memory.
#define ALWAYS_INLINE __attribute__((always_inline))

namespace lessen {

// A bfloat16: the upper half of a float32.
using Brain = uint16_t;

struct Linear {
    const float *values;
    const void *weight;  // [n][k], float, Brain or int8_t
    const float *bias;
    float *out;
    int64_t m, n, k;
    const float *scales = nullptr;  // [n] of weights of 8 bits
};

// One head of one row.
struct Attention {
    const float *queries, *keys, *values;  // of the row's first token
    int64_t query_step, key_step;          // of a token from the next
    float *out;                            // of the row's first token
    int64_t out_step, tokens, dim;
    float *received;  // [tokens] of this head, or null: what each key gets, summed over queries from `listened` on
    int64_t listened;
    bool causal;  // a token sees none after it
    float scale;
    const float *bias;      // of this head, at no distance: bias[key - query]; or null
    const int64_t *places;  // [tokens] in the row, where some have left; or null
};

// One head of keys and values of one row, for its new tokens and the query heads that share it.
struct Cached {
    const float *queries;  // of the first new token, of the first of these heads
    int64_t apart;         // of a token from the next
    const float *keys, *values;  // [held + tokens][dim]; of a source [held][dim]
    float *out;                  // as the queries
    int64_t out_apart, tokens, held, shared, dim;
    float scale;
    bool source;        // all keys are there for all tokens
    const float *bias;  // of the first of these heads, at no distance: bias[key - query]; or null
    int64_t heads_apart;  // of its heads
};

// Signs of weights, 1 = negative, as the kernels read them: eight rows side by side, [n / 8][words][8], each of
// words * 64 bits; bits beyond k and rows beyond n are 0.
using Signs = const uint64_t *;

// Activations are whole numbers times a step of their row: `values` [m][depth], depth a multiple of 64, 0 beyond k,
// with room for a multiple of 16 rows.
struct Int8 {
    const int8_t *values;
    const float *steps;     // [m]
    const int32_t *totals;  // [m]: sums of the values
    const int8_t *weight;   // [n][depth], 0 beyond k, or as arrange8 leaves them; or null:
    Signs signs;            // then these
    const float *scales, *bias;  // [n]
    float *out;
    int64_t m, n, depth;
};

// Activations are signs too, [m][words], times a step of their row.
struct Binary {
    const uint64_t *values;
    const float *steps;
    Signs signs;
    const float *scales, *bias;
    float *out;
    int64_t m, n, k, words;
};

// How weights of 4 bits lie (int4.h): sixteen rows side by side, group after group.
constexpr int64_t GROUP = 32;        // columns that share a scale and a minimum
constexpr int64_t SIXTEEN = 16;      // rows
constexpr int64_t LINE = 64;         // bytes; number j of a row: line j / 8, low bits where j % 8 < 4
constexpr int64_t BLOCK = 5 * LINE;  // sixteen rows of a group: their numbers, then their scales and minimums

// Weights of 4 bits as int4.h has them; activations whole numbers times a step of their group of 32 columns.
struct Fours {
    const int8_t *values;  // [m][groups * 32]
    const float *steps;    // [m][groups]
    const float *totals;   // [m][groups]: sums of the values, times their step
    const uint8_t *blocks;
    const float *bias;
    float *out;
    int64_t m, n, groups;
};

// Activations are float32.
struct Signed {
    const float *values;
    Signs signs;
    const float *scales, *bias;
    float *out;
    int64_t m, n, k, words;
};

enum class Activation { gelu, gelu_by_tanh, relu, silu, sigmoid, tanh };

using Norm = lessen_norm;

// A row of a table, as it is stored; `scale` is that of bytes and signs, words of which are not arranged.
struct Stored {
    enum class As { numbers, bytes, signs } as;
    const void *row;
    float scale;
};

// Of the numbers of a row but one: how far below it the next lies, and sums of e^(x - it) and of that times (x - it).
struct Shares {
    float second, rest, moment;
};

// Sums of R rows and C columns, in registers. To be written out they are copied: where a loop that is not unrolled early
// goes through the very array they are added up in, GCC 12 keeps it in memory, and stores each sum after every addition.
template <class V, int R, int C>
struct Sums {
    typename V::Register at[R][C];
};

struct Kernel {
    const char *isa;
    int columns;  // of a panel
    // Panels first..last of a product; `after` is the panel whose weights will be wanted next.
    void (*panels)(const Linear &, int64_t first, int64_t last, int64_t after);
    // The same for weights in bfloat16.
    void (*panels16)(const Linear &, int64_t first, int64_t last, int64_t after);
    // The same for weights of 8 bits; values stay float32.
    void (*panels_of_bytes)(const Linear &, int64_t first, int64_t last, int64_t after);
    // Attention within one head of one row; `space` has room for `attention_space` numbers.
    void (*attend)(const Attention &, float *space);
    int64_t (*attention_space)(int64_t tokens, int64_t dim);

    // A row as whole numbers from -127 to 127; returns its step.
    float (*quantize)(const float *row, int64_t k, int64_t depth, int8_t *to, int32_t *total);
    // A row as bits; returns its step.
    float (*to_signs)(const float *row, int64_t k, uint64_t *to);
    // A row's signs as -1 and 1; returns its step. Null where counting bits is faster whatever the number of rows.
    float (*signs_as_numbers)(const float *row, int64_t k, int64_t depth, int8_t *to);
    int columns8;  // of a panel of a product of whole numbers
    // Panels first..last; `space` has room for columns8 * depth numbers.
    void (*panels8)(const Int8 &, int64_t first, int64_t last, int8_t *space);
    // Eights first..last of a product of signs; and how other processors of this instruction set do it, or null.
    void (*eights)(const Binary &, int64_t first, int64_t last);
    void (*eights_elsewhere)(const Binary &, int64_t first, int64_t last);
    // Eights first..last of a product of signs with float32; `space` has room for 8 * words * 64 numbers.
    void (*signed_eights)(const Signed &, int64_t first, int64_t last, float *space);
    // Weights [n][k] as panels8 wants them, n rounded up to columns8. Null where that is row by row.
    void (*arrange8)(const int8_t *rows, int64_t n, int64_t k, int8_t *to);

    // A row as whole numbers, with a step and a sum of each group; 0 beyond k.
    void (*quantize_groups)(const float *row, int64_t k, int8_t *to, float *steps, float *totals);
    // Sixteens first..last of a product with weights of 4 bits.
    void (*sixteens)(const Fours &, int64_t first, int64_t last);

    // rowwise.h says what these compute.
    int64_t (*largest)(const float *from, int64_t count);
    Shares (*shares)(const float *from, int64_t count, int64_t place);
    void (*read_row)(const Stored &, int64_t count, float *to);
    void (*activate)(Activation, float centre, const float *from, int64_t count, float *to);
    void (*add_norm)(const float *left, const float *right, const float *factor, const Norm &, int64_t count,
                     float *to);

    // cached.h says what these compute; `space` has room for `cached_space` numbers.
    void (*norm_row)(const float *from, const Norm &, bool rms, int64_t count, float *to);
    void (*attend_cached)(const Cached &, float *space);
    int64_t (*cached_space)(int64_t tokens, int64_t shared, int64_t total, int64_t dim);
};

extern const Kernel amx, avx512, avx2, neon, scalar;

// Not std::min and std::max: a shared inline function compiled for one instruction set may be linked into the
// code of another.
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t greater(int64_t a, int64_t b) { return a < b ? b : a; }
static inline int64_t round_up(int64_t a, int64_t step) { return (a + step - 1) / step * step; }

}  // namespace lessen
