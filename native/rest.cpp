// Layers of an encoder, or what comes after the attention of one, in one call: what is between their products is small
// and many.
#include <algorithm>

#include "crew.h"
#include "dispatch.h"
#include "heads.h"
#include "memory.h"
#include "products.h"
#include "threads.h"

namespace lessen {
namespace {

// Rows that go through the rest of a layer together where its weights are small: of a layer 512 wide, what they become
// on the way takes 1 MB.
constexpr int64_t ROWS_OF_REST = 64;

// A layer after its attention, all rows of one product before the next product.
void rest_of_layer(const lessen_rest *rest, const float *context, const float *hidden, float *out, int64_t m,
                   int threads) {
    const int64_t width = rest->output.n;
    thread_local Space<float> of_output, of_middle, of_normed, of_down;
    float *projected = of_output.of(m * width), *middle = of_middle.of(m * width), *down = of_down.of(m * width);
    multiply(rest->output, {Source::plain, context, rest->output.k}, projected, m, threads);
    if (rest->before) {
        for (int64_t i = 0; i < m * width; i++) middle[i] = hidden[i] + projected[i];
        const Source values = normed(middle, rest->norms[1], rest->rms, width, of_normed.of(m * width));
        feed_forward(*rest, values, down, m, threads);
        for (int64_t i = 0; i < m * width; i++) out[i] = middle[i] + down[i];
        return;
    }
    Source summed{Source::summed, hidden, width, middle};
    summed.added = projected, summed.norm = rest->norms[0];
    Source last{Source::summed, middle, width, out};
    last.factor = feed_forward(*rest, summed, down, m, threads);
    last.added = down, last.norm = rest->norms[1];
    plain_rows(last, m, width, threads);
}

// Whether all weights have one bit: they are small enough to be read again for every few rows.
bool is_small(const lessen_rest &rest) {
    for (const lessen_matrix *matrix : {&rest.output, &rest.up, &rest.down, &rest.learned})
        if (matrix->n && matrix->kind != LESSEN_W1A1 && matrix->kind != LESSEN_W1A8 && matrix->kind != LESSEN_W1A32)
            return false;
    return true;
}

// All rows; a few after others, each thread by itself, where what a row becomes on its way can stay in the caches.
void all_of_rest(const lessen_rest *rest, const float *context, const float *hidden, float *out, int64_t m,
                 int threads) {
    if (m <= ROWS_OF_REST || !is_small(*rest)) return rest_of_layer(rest, context, hidden, out, m, threads);
    const int64_t width = rest->output.n, read = rest->output.k;
    const int64_t parts = round_up((m + ROWS_OF_REST - 1) / ROWS_OF_REST, std::max(1, threads));
    in_turns(m, (m + parts - 1) / parts, worth(m * width * read, threads), [&](int64_t first, int64_t last) {
        rest_of_layer(rest, context + first * read, hidden + first * width, out + first * width, last - first, 1);
    });
}

}  // namespace

const float *feed_forward(const lessen_rest &rest, const Source &values, float *out, int64_t m, int threads) {
    const int64_t inner = rest.up.n, read = rest.down.k;
    thread_local Space<float> of_inner, of_activated, of_learned, of_factor;
    float *made = of_inner.of(m * inner);
    multiply(rest.up, values, made, m, threads);
    Source activated{Source::activated, made, inner, of_activated.of(m * read)};
    activated.activation = static_cast<Activation>(rest.activation), activated.centre = rest.centre;
    if (rest.gated) activated.gate = made + read;
    multiply(rest.down, activated, out, m, threads);
    if (!rest.learned.n) return nullptr;
    Source learned{Source::activated, made + read, inner, of_learned.of(m * read)};
    learned.activation = Activation::tanh;
    float *factor = of_factor.of(m * rest.learned.n);
    multiply(rest.learned, learned, factor, m, threads);
    return factor;
}

}  // namespace lessen

using namespace lessen;

int lessen_encoder_layers(const lessen_encoder *const *layers, int64_t count, const lessen_bias *bias,
                          const float *hidden, const int64_t *lengths, int64_t rows, float *out, int threads) {
    int64_t m = 0;
    for (int64_t row = 0; row < rows; row++) m += lengths[row];
    if (m <= 0 || count <= 0) return 0;
    const auto all = [&] {
        thread_local Space<float> of_normed, of_qkv, of_context, of_hidden;
        const float *from = hidden;
        for (int64_t place = 0; place < count; place++) {
            const lessen_encoder *layer = layers[place];
            float *qkv = of_qkv.of(m * layer->qkv.n), *context = of_context.of(m * layer->rest.output.k);
            const int64_t width = layer->qkv.k;
            Source values{Source::plain, from, width};
            if (layer->rest.before)
                values = normed(from, layer->rest.norms[0], layer->rest.rms, width, of_normed.of(m * width));
            multiply(layer->qkv, values, qkv, m, threads);
            const int64_t inner = layer->heads * layer->dim;
            attention_of({qkv, qkv + inner, qkv + 2 * inner, 3 * inner, 3 * inner, layer->heads, layer->heads, layer->dim,
                          0, layer->scale},
                         lengths, rows, bias, layer->of_bias, context, nullptr, 0, threads);
            // A layer does not write where it reads, so every other one writes to space of its own.
            float *to = (count - place) % 2 ? out : of_hidden.of(m * layer->rest.output.n);
            all_of_rest(&layer->rest, context, from, to, m, threads);
            from = to;
        }
    };
    return result_of([&] { together(all, worth(m * layers[0]->rest.output.n * layers[0]->qkv.n, threads)); });
}

int lessen_layer_rest(const lessen_rest *rest, const float *context, const float *hidden, float *out, int64_t m,
                      int threads) {
    if (m <= 0) return 0;
    const auto all = [&] { all_of_rest(rest, context, hidden, out, m, threads); };
    return result_of([&] { together(all, worth(m * rest->up.n * rest->up.k, threads)); });
}
