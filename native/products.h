// Products with matrices of any kind, of activations that may be made on the way into them.
#pragma once

#include "dispatch.h"

namespace lessen {

// Where the rows of a product come from: memory, or memory after something is done to each row.
struct Source {
    enum What { plain, summed, activated } what;
    const float *from;
    int64_t apart;  // of a row from the next
    float *to = nullptr;  // where rows are made, one after the other
    // Of what is summed: norm(from + added * factor), the factor perhaps missing.
    const float *added = nullptr, *factor = nullptr;
    Norm norm = {};
    // Of what is activated.
    Activation activation = {};
    float centre = 0;
};

// Rows of a source in float32, [m][k].
const float *plain_rows(const Source &source, int64_t m, int64_t k, int threads);

// out = rows of the source . matrix^T, whatever the kind of the matrix.
void multiply(const lessen_matrix &matrix, const Source &values, float *out, int64_t m, int threads);

}  // namespace lessen
