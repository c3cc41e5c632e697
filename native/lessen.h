/* The kernels of lessen, behind a C ABI: no Python, no torch. Matrices are row-major float32. */
#ifndef LESSEN_H
#define LESSEN_H

#include <stdint.h>

#define LESSEN_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever a signature here does; the Python side refuses a library of another version. */
#define LESSEN_ABI 13

LESSEN_API int lessen_abi(void);

/* The instruction set in use: "amx" (and AVX-512), "avx512", "avx2", "neon" or "scalar". */
LESSEN_API const char *lessen_isa(void);

/* Take a named instruction set instead of the best one. Returns 0, or 1 if this processor lacks it. */
LESSEN_API int lessen_use_isa(const char *name);

/* Run `task(data)` on so many threads at once and wait for them; OpenMP's GOMP_parallel is one. */
typedef void (*lessen_fork)(void (*task)(void *), void *data, unsigned threads, unsigned flags);

/* Whose threads to use, so that no second pool of them competes for the processor. NULL: the caller's only. */
LESSEN_API void lessen_use_fork(lessen_fork fork);

/* What computes returns 0, or 1 if it had no memory; what it wrote until then means nothing.
 *
 * out[m][n] = values[m][k] . weight[n][k]^T + bias[n]; made for few rows, m up to about a hundred.
 *
 * k is at least 1; bias may be NULL. A row's result does not depend on m. At most `threads` threads work. */
LESSEN_API int lessen_linear_f32(const float *values, const float *weight, const float *bias, float *out,
                                 int64_t m, int64_t n, int64_t k, int threads);

/* The same with weights in bfloat16, the upper halves of float32; what they multiply stays float32. */
LESSEN_API int lessen_linear_bf16(const float *values, const uint16_t *weight, const float *bias, float *out,
                                  int64_t m, int64_t n, int64_t k, int threads);

/* What scores get for how far apart two tokens of a row stand: of head h, by_distance[h][key - query + longest - 1],
 * [heads][2 longest - 1]; no two tokens are further apart. `places` are those of the tokens of all rows; NULL where none
 * has left, and for decoders. */
typedef struct {
    const float *by_distance;
    int64_t longest;
    const int64_t *places;
} lessen_bias;

/* What attends to what: [tokens][heads][dim] queries, a token so far from the next, and [tokens][key_heads][dim] keys and
 * values. heads / key_heads neighbouring queries share a key. With `causal` a token sees itself and those before it.
 * Scores are multiplied by `scale`. */
typedef struct {
    const float *queries, *keys, *values;
    int64_t query_step, key_step, heads, key_heads, dim, causal;
    float scale;
} lessen_heads;

/* Attention of rows of different lengths, one after the other, each to itself: softmax(scale q k^T + bias) v.
 *
 * out is [tokens][heads][dim]. `bias` may be NULL. received is [tokens] or NULL: the mean over heads and a row's `last` queries,
 * or all where it has fewer, of the probability each token gets. A row's result depends on it alone. */
LESSEN_API int lessen_attention_f32(const lessen_heads *heads, const int64_t *lengths, int64_t rows,
                                    const lessen_bias *bias, float *out, float *received, int64_t last, int threads);

/* Products with low-bit weights: out = (values . weight^T) * scales + bias. `scales` is [n], bias [n] or NULL.
 *
 * `values` is [m][k] float32 for all of them. w8a8 and w1a8 make whole numbers from -127 to 127 of each row, its
 * largest becoming 127; w1a1 makes signs of it, and multiplies by its mean absolute value; w8a32 and w1a32 leave it.
 * A row's result does not depend on m, nor on threads. */

/* Weights of 8 bits from -127 to 127, [n][k], arranged as the instruction set in use reads them. `arranged` has
 * lessen_whole_bytes(n, k) bytes, and should begin at a line of the cache. */
LESSEN_API int64_t lessen_whole_bytes(int64_t n, int64_t k);
LESSEN_API void lessen_arrange_whole(const int8_t *rows, int8_t *arranged, int64_t n, int64_t k);
LESSEN_API int lessen_linear_w8a8(const float *values, const int8_t *arranged, const float *scales,
                                  const float *bias, float *out, int64_t m, int64_t n, int64_t k, int threads);

/* The same weights as they are, [n][k], and so the values. */
LESSEN_API int lessen_linear_w8a32(const float *values, const int8_t *weight, const float *scales,
                                   const float *bias, float *out, int64_t m, int64_t n, int64_t k, int threads);

/* Weights of 4 bits: rows of groups of 32 columns, 20 bytes each, which are GGUF's Q4_1: a scale and a minimum, both
 * float16, and 16 bytes, the low bits of byte i for column i of the group, the high ones for column 16 + i. A weight
 * is scale * number + minimum. Arranged as the kernels read them they take lessen_fours_bytes(n, k) bytes, which
 * should begin at a line of the cache. out = values . weight^T + bias, where values become whole numbers from -127
 * to 127 of each group, its largest becoming 127; columns from k on count as 0 whatever their weights are. */
LESSEN_API int64_t lessen_fours_bytes(int64_t n, int64_t k);
LESSEN_API void lessen_arrange_fours(const uint8_t *rows, uint8_t *arranged, int64_t n, int64_t k);
LESSEN_API int lessen_linear_w4a8(const float *values, const uint8_t *arranged, const float *bias, float *out,
                                  int64_t m, int64_t n, int64_t k, int threads);

/* Weights of one bit, 1 = negative: rows of 64-bit words, bit i of word j for place 64 j + i, 0 beyond k, arranged
 * as the kernels read them. `arranged` has lessen_signs_words(n, k) words. */
LESSEN_API int64_t lessen_signs_words(int64_t n, int64_t k);
LESSEN_API void lessen_arrange_signs(const uint64_t *rows, uint64_t *arranged, int64_t n, int64_t k);
LESSEN_API int lessen_linear_w1a1(const float *values, const uint64_t *arranged, const float *scales,
                                  const float *bias, float *out, int64_t m, int64_t n, int64_t k, int threads);
LESSEN_API int lessen_linear_w1a8(const float *values, const uint64_t *arranged, const float *scales,
                                  const float *bias, float *out, int64_t m, int64_t n, int64_t k, int threads);
LESSEN_API int lessen_linear_w1a32(const float *values, const uint64_t *arranged, const float *scales,
                                   const float *bias, float *out, int64_t m, int64_t n, int64_t k, int threads);

/* A matrix of one of the kinds above: [n][k], `scales` unused by F32, BF16 and W4A8. */
enum {
    LESSEN_F32,
    LESSEN_W8A8,
    LESSEN_W1A8,
    LESSEN_W1A1,
    LESSEN_W1A32,
    LESSEN_BF16,
    LESSEN_W8A32,
    LESSEN_W4A8,
};
typedef struct {
    int64_t kind, n, k;
    const void *weight;
    const float *scales, *bias;
} lessen_matrix;

typedef struct {
    const float *weight, *bias;
    float eps;
} lessen_norm;

/* A layer after its attention, norms after each sum:
 *     middle = norms[0](hidden + output(context))
 *     out    = norms[1](middle + feed_forward(middle))
 * or with `before` norms before each branch, norms[0] that before the attention:
 *     middle = hidden + output(context)
 *     out    = middle + feed_forward(norms[1](middle))
 * where feed_forward is down(activation(up(x))), or with `gated` down(activation(g) * l) of the two halves g and l of
 * up(x), or if learned.n is not 0 SLFN: down(activation(g) - centre) times learned(tanh(l)), element by element. After
 * sums norms are LayerNorm with a bias; before branches they are RMSNorm with `rms`, and the bias may be NULL. */
enum { LESSEN_GELU, LESSEN_GELU_BY_TANH, LESSEN_RELU, LESSEN_SILU, LESSEN_SIGMOID, LESSEN_TANH };
typedef struct {
    lessen_matrix output, up, down, learned;
    lessen_norm norms[2];
    int64_t activation, before, rms, gated;
    float centre;
} lessen_rest;

/* context is [m][output.k], hidden and out [m][output.n]. */
LESSEN_API int lessen_layer_rest(const lessen_rest *rest, const float *context, const float *hidden, float *out,
                                 int64_t m, int threads);

/* A whole layer of an encoder: the context is lessen_attention_f32 of qkv(hidden), normed where norms stand before.
 * Heads of a bias are the layer's, or where `of_bias` is not NULL those it says. */
typedef struct {
    lessen_matrix qkv;
    int64_t heads, dim;
    const int64_t *of_bias;
    float scale;
    lessen_rest rest;
} lessen_encoder;

/* So many layers, one after another, with the same bias of scores, or NULL. hidden and out are [m][rest.output.n], m the
 * sum of the lengths of so many rows. */
LESSEN_API int lessen_encoder_layers(const lessen_encoder *const *layers, int64_t count, const lessen_bias *bias,
                                     const float *hidden, const int64_t *lengths, int64_t rows, float *out,
                                     int threads);

/* What an encoder begins with, normed by LayerNorm: a row of the token table, through `widen` where widen.n is not 0, and
 * rows of `position` and `segment`, where these are not NULL. Of the token table, [token.n][token.k], are read float32,
 * bytes with scales (W8A32) or words of signs with scales (W1A32, not arranged). A row's first token has position
 * `first`. */
typedef struct {
    lessen_matrix token, widen;
    const float *position, *segment;
    int64_t positions, segments, first;
    lessen_norm norm;
} lessen_embeddings;

/* ids and segments (0 where NULL) are [m], m the sum of the lengths of so many rows. out is [m][widen.n], or [m][token.k]
 * without `widen`; `position`, `segment` and the norm, which needs its bias, are as wide. 2 where a table has no row for a
 * token; then out is not written. */
LESSEN_API int lessen_embed(const lessen_embeddings *tables, const int64_t *ids, const int64_t *segments,
                            const int64_t *lengths, int64_t rows, float *out, int threads);

/* Layers of a decoder for a few new tokens, norms before their branches:
 *     middle = hidden + output(attention(qkv(norms[0](hidden))))
 *     middle = middle + read_output(attention(query(read_norm(middle)))), of a layer that reads a source: query.n is
 *              not 0, nor is it `parallel`
 *     out    = middle + feed_forward(norms[1](middle)); with `parallel` norms[1] reads hidden in place of middle.
 * `rest` is the layer after its attention, with `before`.
 * qkv makes [heads][dim] queries, then [key_heads][dim] keys and as many values; heads / key_heads neighbouring
 * queries share a key. Queries and keys are normed where query_norm.weight is not NULL, by RMSNorm, and then their
 * first `turned` numbers turn: x[i] cosine[i] + x[i + turned / 2] sine[i], places counted around. Scores are multiplied
 * by `scale`. Heads of a bias of scores are the layer's, or where `of_bias` is not NULL those it says, neighbours where
 * they share a key. */
typedef struct {
    lessen_matrix qkv, query, read_output;
    lessen_norm query_norm, key_norm, read_norm;
    int64_t heads, key_heads, dim, turned, parallel;
    const int64_t *of_bias;
    float scale;
    lessen_rest rest;
} lessen_decoder;

/* New tokens of a row of the cache that holds so many already. */
typedef struct {
    int64_t row, tokens, held;
} lessen_row;

/* What a row reads: keys and values [heads][tokens][dim], at least one token. */
typedef struct {
    const float *keys, *values;
    int64_t tokens;
} lessen_source;

/* keys and values are [rows][key_heads][capacity][dim]; those of new tokens are written behind the ones held. `sources`
 * are those of `rows`, where the layer reads. */
typedef struct {
    float *keys, *values;
    int64_t capacity;
    const lessen_row *rows;
    int64_t count;
    const lessen_source *sources;
} lessen_room;

/* `count` layers, one after the other, each with a room of its own. cosine and sine are [m][turned], hidden and out
 * [m][rest.output.n]: m tokens, those of each row in turn. `bias` is that of all layers, or NULL. With `narrow` each layer's
 * result is rounded to bfloat16. `last` norms what comes out, as the layers' norms do; it may be NULL. A token's result
 * depends on the tokens before it in its row, and on no other row. */
LESSEN_API int lessen_decoder_layers(const lessen_decoder *const *layers, const lessen_room *const *rooms,
                                     int64_t count, const lessen_norm *last, const float *cosine,
                                     const float *sine, const lessen_bias *bias, const float *hidden, float *out,
                                     int64_t m, int narrow, int threads);

/* The place of the largest number of each row of [m][n], the first of equal ones; -1 where a NaN is among them. */
LESSEN_API void lessen_likeliest(const float *values, int64_t *out, int64_t m, int64_t n);

/* What names the next token from the states of an earlier layer. Its outcomes are rows(x) and then elsewhere(x), where
 *     x = n + up(down(n)), n = norm(hidden)
 * and rows multiply scale * x. Nothing is corrected where down.n is 0, and there is no `elsewhere` where its n is 0.
 * With `rms` the norm is RMSNorm; its bias may be NULL. */
typedef struct {
    lessen_norm norm;
    lessen_matrix down, up, rows, elsewhere;
    int64_t rms;
    float scale;
} lessen_head;

/* hidden is [m][rows.k], out [m][rows.n + elsewhere.n]. A token's result does not depend on the others. */
LESSEN_API int lessen_outcomes(const lessen_head *head, const float *hidden, float *out, int64_t m, int threads);

/* How far the largest number z of each row of [m][n] is ahead: its place, the first of equal ones; how far below it the
 * second lies, minus infinity where there is none; and over all but the largest the sums of e^(x - z), `rest`, and of
 * e^(x - z) (x - z), `moment`. Each is [m]. Where a NaN is among them the place is -1 and the others are NaN. */
LESSEN_API void lessen_lead(const float *values, int64_t *place, float *second, float *rest, float *moment, int64_t m,
                            int64_t n);

/* Largest difference between the kernels and plain loops, over shapes that take every path: some, or many. */
LESSEN_API float lessen_self_check(int thorough);

#ifdef __cplusplus
}
#endif

#endif
