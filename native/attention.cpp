// Attention of the rows of a ragged batch, each to itself, and what each token gets of it.
#include <vector>

#include "dispatch.h"
#include "heads.h"
#include "memory.h"
#include "threads.h"

namespace lessen {

void attention_of(const lessen_heads &heads, const int64_t *lengths, int64_t rows, const lessen_bias *bias,
                  const int64_t *of_bias, float *out, float *received, int64_t last, int threads) {
    const int64_t dim = heads.dim, width = heads.heads * dim, shared = heads.heads / heads.key_heads;
    const Near near(bias, of_bias);
    std::vector<int64_t> starts{0};
    int64_t multiplications = 0;
    for (int64_t row = 0; row < rows; row++) {
        starts.push_back(starts.back() + lengths[row]);
        multiplications += (heads.causal ? 1 : 2) * lengths[row] * lengths[row] * width;
    }
    const int64_t tokens = starts.back();
    std::vector<float> gets(received ? heads.heads * tokens : 0);  // [heads][tokens]
    in_turns(rows * heads.heads, 1, worth(multiplications, threads), [&](int64_t item, int64_t) {
        thread_local Space<float> space;
        const int64_t row = rows - 1 - item / heads.heads;  // rows are sorted: the longest first
        const int64_t head = item % heads.heads, start = starts[row], length = lengths[row];
        const int64_t of_keys = start * heads.key_step + head / shared * dim;
        const int64_t *places = bias && bias->places ? bias->places + start : nullptr;
        if (places && places[length - 1] - places[0] == length - 1) places = nullptr;  // they are neighbours
        kernel->attend({heads.queries + start * heads.query_step + head * dim, heads.keys + of_keys,
                        heads.values + of_keys, heads.query_step, heads.key_step, out + start * width + head * dim,
                        width, length, dim,
                        received ? gets.data() + head * tokens + start : nullptr, greater(0, length - last),
                        heads.causal != 0, heads.scale, near.of(head), places},
                       space.of(kernel->attention_space(length, dim)));
    });
    if (!received) return;
    for (int64_t row = 0; row < rows; row++) {
        const float share = 1.0f / float(heads.heads * least(last, lengths[row]));
        for (int64_t t = starts[row]; t < starts[row + 1]; t++) {
            float sum = 0;
            for (int64_t head = 0; head < heads.heads; head++) sum += gets[head * tokens + t];
            received[t] = sum * share;
        }
    }
}

}  // namespace lessen

using namespace lessen;

int lessen_attention_f32(const lessen_heads *heads, const int64_t *lengths, int64_t rows,
                         const lessen_bias *bias, float *out, float *received, int64_t last, int threads) {
    return result_of(
        [&] { attention_of(*heads, lengths, rows, bias, nullptr, out, received, last, threads); });
}
