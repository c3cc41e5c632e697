// What exits of a decoder say of a few tokens, in one call, and how sure they are of it.
#include <algorithm>
#include <cmath>

#include "crew.h"
#include "dispatch.h"
#include "memory.h"
#include "products.h"

namespace lessen {
namespace {

struct Asked {
    const lessen_head &head;
    const float *hidden;
    float *out;
    int64_t m;
    int threads;
};

void ask(void *data) {
    const auto &asked = *static_cast<Asked *>(data);
    const lessen_head &head = asked.head;
    const int64_t m = asked.m, width = head.rows.k, words = head.rows.n, outcomes = words + head.elsewhere.n;
    thread_local Space<float> of_normed, of_down, of_up, of_elsewhere, of_words;
    float *normed = of_normed.of(m * width);
    for (int64_t row = 0; row < m; row++)
        kernel->norm_row(asked.hidden + row * width, head.norm, head.rms, width, normed + row * width);
    if (head.down.n) {
        float *down = of_down.of(m * head.down.n), *up = of_up.of(m * width);
        product_of(head.down, normed, down, m, asked.threads);
        product_of(head.up, down, up, m, asked.threads);
        for (int64_t i = 0; i < m * width; i++) normed[i] += up[i];
    }
    float *elsewhere = of_elsewhere.of(m);
    if (head.elsewhere.n) product_of(head.elsewhere, normed, elsewhere, m, asked.threads);
    if (head.scale != 1.0f)
        for (int64_t i = 0; i < m * width; i++) normed[i] *= head.scale;
    // The outcomes of one token are its words and what comes behind them; those of several lie apart.
    float *listed = m == 1 || outcomes == words ? asked.out : of_words.of(m * words);
    product_of(head.rows, normed, listed, m, asked.threads);
    if (outcomes == words) return;
    for (int64_t row = 0; row < m; row++) {
        if (m > 1) std::copy_n(listed + row * words, words, asked.out + row * outcomes);
        asked.out[row * outcomes + words] = elsewhere[row];
    }
}

}  // namespace
}  // namespace lessen

using namespace lessen;

int lessen_outcomes(const lessen_head *head, const float *hidden, float *out, int64_t m, int threads) {
    if (m <= 0) return 0;
    Asked asked{*head, hidden, out, m, threads};
    return result_of([&] { together(ask, &asked, threads); });
}

void lessen_lead(const float *values, int64_t *place, float *second, float *rest, float *moment, int64_t m, int64_t n) {
    for (int64_t row = 0; row < m; row++) {
        const float *from = values + row * n;
        place[row] = kernel->largest(from, n);
        const Shares shares = place[row] < 0 ? Shares{NAN, NAN, NAN} : kernel->shares(from, n, place[row]);
        second[row] = shares.second, rest[row] = shares.rest, moment[row] = shares.moment;
    }
}
