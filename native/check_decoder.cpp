// Whether a decoder's layer computes what plain loops do.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

struct Decoder : Loops {
    int64_t width, inner, capacity = 19;
    lessen_decoder layer{};
    lessen_rest &rest = layer.rest;
    const std::vector<int64_t> of_bias = {4, 0, 1, 7, 6, 2};
    lessen_bias bias{};
    // `modern`: RMSNorm, gated, normed and turned heads without biases; else LayerNorm and biases. With `reads` tokens read
    // a source too, and a bias takes the place of turning.
    Decoder(int64_t width, int64_t dim, int64_t inner, bool modern, bool parallel, bool reads)
        : width(width), inner(inner) {
        layer.heads = 6, layer.key_heads = modern && !reads ? 2 : 6, layer.dim = dim;
        layer.turned = reads ? 0 : dim / 2 / 2 * 2, layer.scale = 1.0f / std::sqrt(float(dim));
        rest.before = 1, rest.rms = modern, rest.gated = modern, layer.parallel = parallel;
        rest.activation = modern ? LESSEN_SILU : LESSEN_GELU;
        layer.qkv = matrix((6 + 2 * layer.key_heads) * dim, width, !modern);
        rest.output = matrix(width, 6 * dim, !modern), rest.up = matrix(modern ? 2 * inner : inner, width, !modern);
        rest.down = matrix(width, inner, !modern);
        for (auto &each : rest.norms) each = norm(width, !modern);
        if (modern) layer.query_norm = norm(dim, false), layer.key_norm = norm(dim, false);
        if (!reads) return;
        layer.scale = 0.7f, layer.of_bias = modern ? of_bias.data() : nullptr;
        layer.query = matrix(6 * dim, width, !modern), layer.read_output = matrix(width, 6 * dim, !modern);
        layer.read_norm = norm(width, !modern);
        bias = {numbers(8 * (2 * capacity - 1), 1), capacity, nullptr};
    }

    // What the heads find among `sees` keys, as many places before the last of which stands the query.
    void look(const double *queries, const double *keys, const double *values, int64_t apart, int64_t sees, bool near,
              std::vector<double> &context) const {
        const int64_t dim = layer.dim;
        for (int64_t head = 0; head < layer.heads; head++) {
            const int64_t of_keys = head / (layer.heads / (near ? layer.key_heads : layer.heads)) * apart;
            std::vector<double> share(sees);
            double sum = 0, most = -INFINITY;
            for (int64_t s = 0; s < sees; s++) {
                double dot = 0;
                for (int64_t i = 0; i < dim; i++) dot += queries[head * dim + i] * keys[of_keys + s * dim + i];
                dot *= layer.scale;
                if (near && bias.longest) {
                    const int64_t line = (layer.of_bias ? of_bias[head] : head) * (2 * bias.longest - 1);
                    dot += bias.by_distance[line + s - (sees - 1) + bias.longest - 1];
                }
                share[s] = dot, most = std::max(most, dot);
            }
            for (double &each : share) sum += each = std::exp(each - most);
            for (int64_t i = 0; i < dim; i++) context[head * dim + i] = 0;
            for (int64_t s = 0; s < sees; s++)
                for (int64_t i = 0; i < dim; i++)
                    context[head * dim + i] += share[s] / sum * values[of_keys + s * dim + i];
        }
    }

    double activated(double x) const {
        return rest.activation == LESSEN_SILU ? x / (1 + std::exp(-x)) : 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    }

    // The new tokens of a row whose cache holds `held`, one after the other; the cache is double here.
    float wrong() {
        const int64_t dim = layer.dim, line = layer.key_heads * capacity * dim, all = 3, half = layer.turned / 2;
        const float *some = numbers(all * line, 1), *others = numbers(all * line, 1);
        std::vector<float> keys(some, some + all * line), values(others, others + all * line);
        std::vector<lessen_row> rows = {{2, 1, 17}, {0, 4, 0}, {1, 3, 9}};
        int64_t m = 0;
        for (const auto &row : rows) m += row.tokens;
        const float *hidden = numbers(m * width, 1), *cosine = numbers(m * layer.turned, 1);
        const float *sine = numbers(m * layer.turned, 1);
        const std::vector<float> old_keys = keys, old_values = values;
        std::vector<float> out(m * width);
        std::vector<lessen_source> sources;
        for (int64_t tokens : {5, 1, 23})
            sources.push_back({numbers(6 * tokens * dim, 1), numbers(6 * tokens * dim, 1), tokens});
        const lessen_room room{keys.data(), values.data(), capacity, rows.data(), int64_t(rows.size()), sources.data()};
        const lessen_decoder *layers[] = {&layer};
        const lessen_room *rooms[] = {&room};
        const lessen_bias *near = bias.longest ? &bias : nullptr;
        lessen_decoder_layers(layers, rooms, 1, nullptr, cosine, sine, near, hidden, out.data(), m, 0, 2);

        float worst = 0;
        int64_t token = 0;
        for (const auto &row : rows) {
            std::vector<double> k(old_keys.begin() + row.row * line, old_keys.begin() + (row.row + 1) * line);
            std::vector<double> v(old_values.begin() + row.row * line, old_values.begin() + (row.row + 1) * line);
            for (int64_t t = 0; t < row.tokens; t++, token++) {
                const std::vector<double> given(hidden + token * width, hidden + (token + 1) * width);
                std::vector<double> read = given;
                normed(read.data(), width, rest.norms[0], rest.rms);
                std::vector<double> qkv = product(layer.qkv, read), context(layer.heads * dim);
                for (int64_t head = 0; head < layer.heads + layer.key_heads; head++) {
                    double *part = qkv.data() + head * dim;
                    const lessen_norm &by = head < layer.heads ? layer.query_norm : layer.key_norm;
                    if (by.weight) normed(part, dim, by, true);
                    const std::vector<double> before(part, part + dim);
                    for (int64_t i = 0; i < layer.turned; i++)
                        part[i] = before[i] * cosine[token * layer.turned + i] +
                                  before[(i + half) % layer.turned] * sine[token * layer.turned + i];
                }
                const int64_t sees = row.held + t + 1;
                for (int64_t head = 0; head < layer.key_heads; head++)
                    for (int64_t i = 0; i < dim; i++) {
                        const int64_t at = (head * capacity + sees - 1) * dim + i;
                        k[at] = qkv[(layer.heads + head) * dim + i];
                        v[at] = qkv[(layer.heads + layer.key_heads + head) * dim + i];
                        worst = worst_of({worst, std::abs(float(k[at]) - keys[row.row * line + at])});
                        worst = worst_of({worst, std::abs(float(v[at]) - values[row.row * line + at])});
                    }
                look(qkv.data(), k.data(), v.data(), capacity * dim, sees, true, context);
                std::vector<double> middle = product(rest.output, context);
                for (int64_t i = 0; i < width; i++) middle[i] += given[i];
                if (layer.query.n) {
                    const lessen_source &source = sources[&row - rows.data()];
                    const int64_t count = 6 * source.tokens * dim;
                    const std::vector<double> from(source.keys, source.keys + count);
                    const std::vector<double> to(source.values, source.values + count);
                    read = middle;
                    normed(read.data(), width, layer.read_norm, rest.rms);
                    const std::vector<double> asked = product(layer.query, read);
                    look(asked.data(), from.data(), to.data(), source.tokens * dim, source.tokens, false, context);
                    const std::vector<double> found = product(layer.read_output, context);
                    for (int64_t i = 0; i < width; i++) middle[i] += found[i];
                }
                read = layer.parallel ? given : middle;
                normed(read.data(), width, rest.norms[1], rest.rms);
                std::vector<double> up = product(rest.up, read), gate(inner);
                for (int64_t i = 0; i < inner; i++) gate[i] = activated(up[i]) * (rest.gated ? up[inner + i] : 1);
                const std::vector<double> added = product(rest.down, gate);
                for (int64_t i = 0; i < width; i++)
                    worst = worst_of({worst, std::abs(float(middle[i] + added[i]) - out[token * width + i])});
            }
        }
        return worst / float(2 * width + inner);
    }
};

}  // namespace

float wrong_in_decoder() {
    float worst = 0;
    for (int64_t dim : {5, 16, 40, 64})
        for (bool modern : {false, true}) {
            worst = worst_of({worst, Decoder(37, dim, 21, modern, false, true).wrong()});
            for (bool parallel : {false, true})
                worst = worst_of({worst, Decoder(37, dim, 21, modern, parallel, false).wrong()});
        }
    return worst;
}
