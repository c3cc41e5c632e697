// Products with matrices of any kind, of activations that may be made on the way into them.
#pragma once

#include "kernels.h"

namespace lessen {

// Where the rows of a product come from: memory, or memory after something is done to each row.
struct Source {
    enum What { plain, summed, normed, activated } what;
    const float *from;
    int64_t apart;  // of a row from the next
    float *to = nullptr;  // where rows are made, one after the other
    // Of what is summed: norm(from + added * factor), the factor perhaps missing. Of what is normed the kind of norm.
    const float *added = nullptr, *factor = nullptr;
    Norm norm = {};
    bool rms = false;
    // Of what is activated; `gate` is multiplied by it, row for row as far apart as `from`, or null.
    Activation activation = {};
    float centre = 0;
    const float *gate = nullptr;
};

// Rows of a source in float32, [m][k].
const float *plain_rows(const Source &source, int64_t m, int64_t k, int threads);

// out = rows of the source . matrix^T, whatever the kind of the matrix.
void multiply(const lessen_matrix &matrix, const Source &values, float *out, int64_t m, int threads);

// out = values . matrix^T, whatever the kind of the matrix.
void product_of(const lessen_matrix &matrix, const float *values, float *out, int64_t m, int threads);

// Rows [m][k] normed, into `to`.
inline Source normed(const float *from, const lessen_norm &norm, bool rms, int64_t k, float *to) {
    Source source{Source::normed, from, k, to};
    source.norm = norm, source.rms = rms;
    return source;
}

// out = down of the feed-forward half of a layer, whose input `values` makes. Returns what it is still to be multiplied
// by, [m][down.n], or null.
const float *feed_forward(const lessen_rest &rest, const Source &values, float *out, int64_t m, int threads);

}  // namespace lessen
