// Attention of the rows of a ragged batch, each to itself, and what each token gets of it.
#include <vector>

#include "dispatch.h"

namespace lessen {

void attention_of(const float *qkv, const int64_t *lengths, int64_t rows, int64_t heads, int64_t dim, float scale,
                  const lessen_bias *bias, const int64_t *of_bias, float *out, float *received, int threads) {
    const int64_t width = heads * dim;
    const Near near(bias, of_bias);
    std::vector<int64_t> starts{0};
    int64_t multiplications = 0;
    for (int64_t row = 0; row < rows; row++) {
        starts.push_back(starts.back() + lengths[row]);
        multiplications += 2 * lengths[row] * lengths[row] * width;
    }
    const int64_t tokens = starts.back();
    std::vector<float> gets(received ? heads * tokens : 0);  // [heads][tokens]
    in_turns(rows * heads, 1, worth(multiplications, threads), [&](int64_t item, int64_t) {
        thread_local Space<float> space;
        const int64_t row = rows - 1 - item / heads;  // rows are sorted: the longest first
        const int64_t head = item % heads, start = starts[row];
        float *got = received ? gets.data() + head * tokens + start : nullptr;
        const int64_t *places = bias && bias->places ? bias->places + start : nullptr;
        if (places && places[lengths[row] - 1] - places[0] == lengths[row] - 1) places = nullptr;  // they are neighbours
        kernel->attend({qkv + start * 3 * width, out + start * width, got, lengths[row], heads, dim, head, scale,
                        near.of(head), places},
                       space.of(kernel->attention_space(lengths[row], dim)));
    });
    if (!received) return;
    for (int64_t row = 0; row < rows; row++) {
        const float share = 1.0f / float(heads * lengths[row]);
        for (int64_t t = starts[row]; t < starts[row + 1]; t++) {
            float sum = 0;
            for (int64_t head = 0; head < heads; head++) sum += gets[head * tokens + t];
            received[t] = sum * share;
        }
    }
}

}  // namespace lessen

using namespace lessen;

int lessen_attention_f32(const float *qkv, const int64_t *lengths, int64_t rows, int64_t heads, int64_t dim,
                         float scale, const lessen_bias *bias, float *out, float *received, int threads) {
    return result_of(
        [&] { attention_of(qkv, lengths, rows, heads, dim, scale, bias, nullptr, out, received, threads); });
}
