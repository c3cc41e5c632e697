// Attention of the rows of a ragged batch, each to itself, and what each token gets of it.
#include <algorithm>
#include <atomic>
#include <vector>

#include "dispatch.h"

namespace lessen {
namespace {

struct AttentionWork {
    const float *qkv;
    const int64_t *lengths;
    int64_t rows, heads, dim;
    float *out;
    std::vector<int64_t> starts;   // of the rows
    std::vector<float> received;   // [heads][tokens], empty if not asked for
    std::atomic<int64_t> next{0};
};

void work_on_attention(void *data) {
    auto &work = *static_cast<AttentionWork *>(data);
    thread_local Space<float> space;
    for (;;) {
        const int64_t item = work.next.fetch_add(1);
        if (item >= work.rows * work.heads) return;
        const int64_t row = work.rows - 1 - item / work.heads;  // rows are sorted: the longest first
        const int64_t head = item % work.heads, start = work.starts[row], tokens = work.lengths[row];
        const int64_t width = work.heads * work.dim, all = work.starts[work.rows];
        float *received = work.received.empty() ? nullptr : work.received.data() + head * all + start;
        kernel->attend({work.qkv + start * 3 * width, work.out + start * width, received, tokens, work.heads, work.dim,
                        head},
                       space.of(kernel->attention_space(tokens, work.dim)));
    }
}

void attention_of(const float *qkv, const int64_t *lengths, int64_t rows, int64_t heads, int64_t dim, float *out,
                  float *received, int threads) {
    AttentionWork work{qkv, lengths, rows, heads, dim, out, {0}, {}};
    int64_t multiplications = 0;
    for (int64_t row = 0; row < rows; row++) {
        work.starts.push_back(work.starts.back() + lengths[row]);
        multiplications += 2 * lengths[row] * lengths[row] * heads * dim;
    }
    const int64_t tokens = work.starts.back();
    if (received) work.received.resize(heads * tokens);
    run(work_on_attention, &work, worth(multiplications, threads));
    if (!received) return;
    for (int64_t row = 0; row < rows; row++) {
        const float share = 1.0f / float(heads * lengths[row]);
        for (int64_t t = work.starts[row]; t < work.starts[row + 1]; t++) {
            float sum = 0;
            for (int64_t head = 0; head < heads; head++) sum += work.received[head * tokens + t];
            received[t] = sum * share;
        }
    }
}

}  // namespace
}  // namespace lessen

using namespace lessen;

int lessen_attention_f32(const float *qkv, const int64_t *lengths, int64_t rows, int64_t heads, int64_t dim,
                         float *out, float *received, int threads) {
    return result_of([&] { attention_of(qkv, lengths, rows, heads, dim, out, received, threads); });
}
