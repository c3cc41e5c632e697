// Whether what an encoder begins with, its layers, and the rest of one after its attention are what plain loops compute.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

using Row = std::vector<double>;

double activation(int64_t which, double x) {
    switch (which) {
    case LESSEN_GELU: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case LESSEN_GELU_BY_TANH: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case LESSEN_RELU: return x < 0 ? 0 : x;
    case LESSEN_SILU: return x / (1 + std::exp(-x));
    case LESSEN_SIGMOID: return 1 / (1 + std::exp(-x));
    default: return std::tanh(x);
    }
}

// A layer in float32.
struct Layer : Loops {
    int64_t width, inner;
    lessen_encoder layer{};
    lessen_rest &rest = layer.rest;
    static constexpr int64_t of_bias[3] = {3, 0, 2};

    // As BERT's and BEExformer's (SLFN) have norms after sums, those of T5 (gated) before branches, without biases.
    enum Half { plain, slfn, gated };
    Layer(int64_t width, int64_t heads, int64_t dim, int64_t inner, int64_t which, Half half, bool before = false)
        : width(width), inner(inner) {
        const bool biases = !before;
        layer.qkv = matrix(3 * heads * dim, width, biases), layer.heads = heads, layer.dim = dim;
        layer.scale = before ? 0.6f : 1 / std::sqrt(float(dim)), layer.of_bias = before ? nullptr : of_bias;
        rest.output = matrix(width, heads * dim, biases), rest.down = matrix(width, inner, biases);
        rest.up = matrix(half == plain ? inner : 2 * inner, width, biases);
        if (half == slfn) rest.learned = matrix(width, inner, true);
        for (auto &each : rest.norms) each = norm(width, biases);
        rest.activation = which, rest.centre = half == slfn ? 0.5f : 0.0f;
        rest.before = before, rest.rms = before, rest.gated = half == gated;
    }

    Row after(const Row &context, const Row &hidden) const {
        Row row = product(rest.output, context);
        for (int64_t i = 0; i < width; i++) row[i] += hidden[i];
        if (!rest.before) normed(row.data(), width, rest.norms[0], false);
        Row read = row;
        if (rest.before) normed(read.data(), width, rest.norms[1], rest.rms);
        Row made = product(rest.up, read), learned(made.begin() + inner, made.end());
        for (double &value : made) value = activation(rest.activation, value) - double(rest.centre);
        if (rest.gated)
            for (int64_t i = 0; i < inner; i++) made[i] *= learned[i];
        for (double &value : learned) value = std::tanh(value);
        Row added = product(rest.down, made);
        if (rest.learned.n) {
            const Row factor = product(rest.learned, learned);
            for (int64_t i = 0; i < width; i++) added[i] *= factor[i];
        }
        for (int64_t i = 0; i < width; i++) row[i] += added[i];
        if (!rest.before) normed(row.data(), width, rest.norms[1], false);
        return row;
    }

    // One text, with a bias or none.
    std::vector<Row> of(const std::vector<Row> &hidden, const lessen_bias *bias) const {
        const int64_t dim = layer.dim, all = layer.heads * dim;
        std::vector<Row> qkv, out;
        for (Row row : hidden) {
            if (rest.before) normed(row.data(), width, rest.norms[0], rest.rms);
            qkv.push_back(product(layer.qkv, row));
        }
        for (size_t q = 0; q < hidden.size(); q++) {
            Row context(all);
            for (int64_t head = 0; head < all; head += dim) {
                Row share(hidden.size());
                double sum = 0;
                for (size_t k = 0; k < hidden.size(); k++) {
                    double dot = 0;
                    for (int64_t i = head; i < head + dim; i++) dot += qkv[q][i] * qkv[k][all + i];
                    dot *= double(layer.scale);
                    if (bias) {
                        const int64_t line = layer.of_bias ? layer.of_bias[head / dim] : head / dim;
                        dot += bias->by_distance[(line + 1) * (2 * bias->longest - 1) - bias->longest + int64_t(k) - int64_t(q)];
                    }
                    sum += share[k] = std::exp(dot);
                }
                for (size_t k = 0; k < hidden.size(); k++)
                    for (int64_t i = head; i < head + dim; i++) context[i] += share[k] / sum * qkv[k][2 * all + i];
            }
            out.push_back(after(context, hidden[q]));
        }
        return out;
    }

    float wrong_in_rest(int64_t m) {
        const float *context = numbers(m * rest.output.k, 1), *hidden = numbers(m * width, 1);
        std::vector<float> out(m * width);
        lessen_layer_rest(&rest, context, hidden, out.data(), m, 2);
        float worst = 0;
        for (int64_t r = 0; r < m; r++) {
            const Row row = after(Row(context + r * rest.output.k, context + (r + 1) * rest.output.k),
                                  Row(hidden + r * width, hidden + (r + 1) * width));
            for (int64_t i = 0; i < width; i++) worst = worst_of({worst, std::abs(float(row[i]) - out[r * width + i])});
        }
        return worst / float(2 * width + inner);
    }
};

// Tables, and some layers on what they give.
struct Encoder : Loops {
    int64_t width, read;
    lessen_embeddings tables{};
    std::vector<int8_t> bytes;
    std::vector<uint64_t> words;
    static constexpr int64_t ROWS = 11, POSITIONS = 24;

    Encoder(int64_t width, int64_t kind, bool narrow, bool bare) : width(width), read(narrow ? width / 2 : width) {
        const int64_t line = (read + 63) / 64;
        tables.token = matrix(ROWS, read, false), tables.token.kind = kind;
        for (int64_t i = 0; i < ROWS * read; i++) bytes.push_back(int8_t(i * 37 % 255 - 127));
        words.resize(ROWS * line);
        for (int64_t i = 0; i < ROWS * read; i++)
            words[i / read * line + i % read / 64] |= uint64_t(i * 7 % 3 == 0) << (i % read % 64);
        if (kind == LESSEN_W8A32) tables.token.weight = bytes.data();
        if (kind == LESSEN_W1A32) tables.token.weight = words.data();
        if (kind != LESSEN_F32) tables.token.scales = numbers(ROWS, 0.02);
        if (narrow) tables.widen = matrix(width, read, false);
        tables.norm = norm(width, true), tables.first = 2;
        if (bare) return;
        tables.position = numbers(POSITIONS * width, 1), tables.positions = POSITIONS;
        tables.segment = numbers(2 * width, 1), tables.segments = 2;
    }

    Row of(int64_t id, int64_t place, int64_t segment) const {
        Row row(read);
        const float scale = tables.token.scales ? tables.token.scales[id] : 1;
        for (int64_t i = 0; i < read; i++) {
            const bool negative = words[id * ((read + 63) / 64) + i / 64] >> (i % 64) & 1;
            row[i] = double(scale) * (tables.token.kind == LESSEN_W8A32   ? bytes[id * read + i]
                                      : tables.token.kind == LESSEN_W1A32 ? (negative ? -1.0 : 1.0)
                                                                          : double(static_cast<const float *>(
                                                                                tables.token.weight)[id * read + i]));
        }
        if (tables.widen.n) row = product(tables.widen, row);
        for (int64_t i = 0; i < width; i++) {
            if (tables.position) row[i] += tables.position[(place + tables.first) * width + i];
            if (tables.segment) row[i] += tables.segment[segment * width + i];
        }
        normed(row.data(), width, tables.norm, false);
        return row;
    }

    float wrong(const std::vector<const Layer *> &layers, const lessen_bias *bias = nullptr) const {
        const std::vector<int64_t> lengths = {1, 6, 19};
        std::vector<int64_t> ids, segments;
        for (int64_t i = 0; i < 26; i++) ids.push_back(i * 5 % ROWS), segments.push_back(i % 2);
        std::vector<float> begun(26 * width), out;
        if (lessen_embed(&tables, ids.data(), segments.data(), lengths.data(), 3, begun.data(), 2)) return 1;
        out = begun;  // of no layers
        std::vector<const lessen_encoder *> each;
        for (const Layer *layer : layers) each.push_back(&layer->layer);
        lessen_encoder_layers(each.data(), int64_t(each.size()), bias, begun.data(), lengths.data(), 3, out.data(), 2);
        float worst = 0;
        int64_t token = 0;
        for (int64_t length : lengths) {
            std::vector<Row> hidden;
            for (int64_t place = 0; place < length; place++)
                hidden.push_back(of(ids[token + place], place, segments[token + place]));
            worst = worst_of({worst, apart(hidden, begun.data() + token * width)});
            for (const Layer *layer : layers) hidden = layer->of(hidden, bias);
            worst = worst_of({worst, apart(hidden, out.data() + token * width)});
            token += length;
        }
        return worst / float(width);
    }

    static float apart(const std::vector<Row> &rows, const float *found) {
        float worst = 0;
        for (const Row &row : rows)
            for (const double value : row) worst = worst_of({worst, std::abs(float(value) - *found++)});
        return worst;
    }

    // Whether what no table has is refused.
    bool refuses() const {
        const int64_t ids[3] = {0, ROWS - 1, ROWS}, wrong[2] = {0, -1}, segments[2] = {1, 2};
        const int64_t one = 1, two = 2, three = 3, many = POSITIONS - 1;
        const std::vector<int64_t> zeros(many);
        std::vector<float> out(many * width);
        const auto result = [&](const int64_t *given, const int64_t *beside, const int64_t &length) {
            return lessen_embed(&tables, given, beside, &length, 1, out.data(), 1);
        };
        return !result(ids, segments, one) && result(ids, nullptr, three) == 2 && result(wrong, nullptr, two) == 2 &&
               result(ids, segments, two) == 2 && result(zeros.data(), nullptr, many) == 2;
    }
};

}  // namespace

float wrong_in_encoder() {
    float worst = 0;
    for (int64_t which = LESSEN_GELU; which <= LESSEN_TANH; which++)
        for (int64_t width : {5, 16, 70})
            worst = worst_of({worst, Layer(width, 1, width + 3, 40, which, Layer::plain).wrong_in_rest(3),
                              Layer(width, 1, width + 3, 33, which, Layer::slfn).wrong_in_rest(9),
                              Layer(width, 1, width + 3, 33, which, Layer::gated, true).wrong_in_rest(9)});
    for (int64_t width : {6, 32, 70}) {
        const Layer plain(width, 3, 20, 33, LESSEN_GELU, Layer::plain);
        const Layer slfn(width, 2, 16, 40, LESSEN_SIGMOID, Layer::slfn);
        const Layer gated(width, 3, 9, 21, LESSEN_GELU_BY_TANH, Layer::gated, true);
        const Layer relu(width, 1, 16, 40, LESSEN_RELU, Layer::plain, true);
        Loops made;
        const lessen_bias bias{made.numbers(4 * 39, 1), 20, nullptr};
        for (int64_t kind : {LESSEN_F32, LESSEN_W8A32, LESSEN_W1A32})
            for (bool narrow : {false, true}) {
                const Encoder tables(width, kind, narrow, false);
                if (!tables.refuses()) return 1;
                worst = worst_of({worst, tables.wrong({})});
            }
        const Encoder tables(width, LESSEN_F32, false, false), others(width, LESSEN_F32, false, true);
        worst = worst_of({worst, tables.wrong({&plain, &slfn, &plain}), others.wrong({&slfn, &plain}),
                          tables.wrong({&gated, &relu, &gated}, &bias), others.wrong({&plain, &gated}, &bias),
                          others.wrong({&gated})});
    }
    return worst;
}
