// Whether the kernels compute what plain loops do.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "dispatch.h"

namespace {

float wrong_in_linear(int64_t m, int64_t n, int64_t k) {
    std::vector<float> values(m * k), weight(n * k), bias(n), out(m * n);
    for (int64_t i = 0; i < m * k; i++) values[i] = std::sin(0.7f * i);
    for (int64_t i = 0; i < n * k; i++) weight[i] = std::cos(0.3f * i);
    for (int64_t i = 0; i < n; i++) bias[i] = 0.1f * i;
    lessen_linear_f32(values.data(), weight.data(), bias.data(), out.data(), m, n, k, 2);
    float worst = 0;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c++) {
            double sum = bias[c];
            for (int64_t i = 0; i < k; i++) sum += double(values[r * k + i]) * weight[c * k + i];
            worst = worst_of({worst, std::abs(float(sum) - out[r * n + c])});
        }
    std::vector<uint16_t> narrow(n * k);
    for (int64_t i = 0; i < n * k; i++) {
        uint32_t bits;
        std::memcpy(&bits, &weight[i], sizeof bits);
        narrow[i] = uint16_t(bits >> 16);
        bits &= 0xFFFF0000u;
        std::memcpy(&weight[i], &bits, sizeof bits);
    }
    lessen_linear_bf16(values.data(), narrow.data(), bias.data(), out.data(), m, n, k, 2);
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c++) {
            double sum = bias[c];
            for (int64_t i = 0; i < k; i++) sum += double(values[r * k + i]) * weight[c * k + i];
            worst = worst_of({worst, std::abs(float(sum) - out[r * n + c])});
        }
    return worst / float(k);
}

// The largest difference of each low-bit product from plain loops over what it says it computes.
float wrong_in_low_bits(int64_t m, int64_t n, int64_t k) {
    const int64_t words = (k + 63) / 64;
    std::vector<float> values(m * k), scales(n), bias(n), out(m * n);
    std::vector<int8_t> weight(n * k), whole(lessen_whole_bytes(n, k));
    std::vector<uint64_t> rows(n * words), arranged(lessen_signs_words(n, k));
    for (int64_t i = 0; i < m * k; i++) values[i] = std::sin(0.7f * i);
    for (int64_t c = 0; c < n; c++) {
        scales[c] = 0.01f * float(1 + c % 7), bias[c] = 0.1f * c;
        for (int64_t i = 0; i < k; i++) {
            weight[c * k + i] = int8_t((i * 37 + c * 11) % 255 - 127);
            if ((i * 7 + c * 5) % 3 == 0) rows[c * words + i / 64] |= uint64_t(1) << (i % 64);
        }
    }
    lessen_arrange_signs(rows.data(), arranged.data(), n, k);
    float worst = 0;
    const auto compare = [&](bool one_bit, int activations) {
        for (int64_t r = 0; r < m; r++) {
            const float *row = values.data() + r * k;
            float most = 0;
            double size = 0;
            for (int64_t i = 0; i < k; i++) most = std::max(most, std::abs(row[i])), size += std::abs(row[i]);
            const double step = activations == 8 ? most / 127.0f : activations == 1 ? size / std::max<int64_t>(k, 1) : 1.0;
            const float inverse = most > 0 ? 127.0f / most : 0.0f;
            for (int64_t c = 0; c < n; c++) {
                double sum = 0, sizes = 1;
                for (int64_t i = 0; i < k; i++) {
                    const double value = activations == 8   ? std::nearbyint(row[i] * inverse)
                                         : activations == 1 ? (row[i] < 0 ? -1 : 1)
                                                            : row[i];
                    const bool negative = rows[c * words + i / 64] >> (i % 64) & 1;
                    const double factor = one_bit ? (negative ? -1 : 1) : weight[c * k + i];
                    sum += value * factor;
                    sizes += std::abs(value * factor);
                }
                const double expected = sum * step * scales[c] + bias[c];
                const double room = std::max(sizes * step * scales[c] + std::abs(bias[c]), 1e-30);  // all may be 0
                worst = worst_of({worst, float(std::abs(expected - out[r * n + c]) / room)});
            }
        }
    };
    lessen_arrange_whole(weight.data(), whole.data(), n, k);
    lessen_linear_w8a8(values.data(), whole.data(), scales.data(), bias.data(), out.data(), m, n, k, 2);
    compare(false, 8);
    lessen_linear_w8a32(values.data(), weight.data(), scales.data(), bias.data(), out.data(), m, n, k, 2);
    compare(false, 32);
    lessen_linear_w1a8(values.data(), arranged.data(), scales.data(), bias.data(), out.data(), m, n, k, 2);
    compare(true, 8);
    lessen_linear_w1a1(values.data(), arranged.data(), scales.data(), bias.data(), out.data(), m, n, k, 2);
    compare(true, 1);
    lessen_linear_w1a32(values.data(), arranged.data(), scales.data(), bias.data(), out.data(), m, n, k, 2);
    compare(true, 32);
    return worst;
}

// With a bias tokens stand one, or with `gaps` one or two, apart.
enum class Bias { none, plain, gaps };

// What a token gets of a row's last queries only, in causal attention.
constexpr int64_t LAST = 8;

float wrong_in_attention(const std::vector<int64_t> &lengths, int64_t heads, int64_t dim, Bias kind, bool causal) {
    int64_t tokens = 0, start = 0;
    for (int64_t length : lengths) tokens += length;
    const int64_t longest = 2 * lengths.back();
    std::vector<float> by_distance(heads * (2 * longest - 1));
    for (size_t i = 0; i < by_distance.size(); i++) by_distance[i] = std::sin(1.3f * i);
    std::vector<int64_t> places;
    for (int64_t length : lengths)
        for (int64_t t = 0, place = 1; t < length; t++, place += kind == Bias::gaps ? 1 + t % 2 : 1) places.push_back(place);
    const lessen_bias bias{by_distance.data(), longest, kind == Bias::gaps ? places.data() : nullptr};
    const float scale = (kind == Bias::none ? 1 : 0.8f) / std::sqrt(float(dim));
    // Causal heads share their keys.
    const int64_t width = heads * dim, inner = causal ? dim : width, step = width + 2 * inner;
    std::vector<float> qkv(tokens * step), out(tokens * width), received(tokens);
    for (size_t i = 0; i < qkv.size(); i++) qkv[i] = std::sin(0.37f * i);
    const float *from = qkv.data();
    const lessen_heads all{from, from + width, from + width + inner, step, step, heads, causal ? 1 : heads, dim, causal,
                           scale};
    lessen_attention_f32(&all, lengths.data(), lengths.size(), kind == Bias::none ? nullptr : &bias, out.data(),
                         received.data(), causal ? LAST : tokens, 2);
    float worst = 0;
    for (int64_t length : lengths) {
        std::vector<double> gets(length);
        for (int64_t head = 0; head < heads; head++)
            for (int64_t q = 0; q < length; q++) {
                std::vector<double> weight(length);
                const int64_t of_keys = width + (causal ? 0 : head * dim);
                double sum = 0;
                for (int64_t k = 0; k < (causal ? q + 1 : length); k++) {
                    double dot = 0;
                    for (int64_t i = 0; i < dim; i++)
                        dot += double(qkv[(start + q) * step + head * dim + i]) * qkv[(start + k) * step + of_keys + i];
                    dot *= double(scale);
                    const int64_t apart = places[start + k] - places[start + q];
                    if (kind != Bias::none) dot += by_distance[head * (2 * longest - 1) + apart + longest - 1];
                    sum += weight[k] = std::exp(dot);
                }
                const int64_t last = causal ? std::min(LAST, length) : length;
                for (int64_t k = 0; q >= length - last && k < length; k++)
                    gets[k] += weight[k] / sum / double(heads * last);
                for (int64_t i = 0; i < dim; i++) {
                    double mixed = 0;
                    for (int64_t k = 0; k < length; k++)
                        mixed += weight[k] / sum * qkv[(start + k) * step + of_keys + inner + i];
                    worst = worst_of({worst, std::abs(float(mixed) - out[(start + q) * width + head * dim + i])});
                }
            }
        for (int64_t k = 0; k < length; k++) worst = worst_of({worst, std::abs(float(gets[k]) - received[start + k])});
        start += length;
    }
    return worst;
}

// Whether the largest of so many numbers is found, wherever it stands, and the first of two.
bool finds_the_largest(int64_t count) {
    std::vector<float> values(2 * count);
    for (int64_t place : {int64_t(0), count / 3, count / 2, count - 1}) {
        for (int64_t i = 0; i < count; i++) values[i] = values[count + i] = -3 - std::abs(std::sin(float(i)));
        values[place] = values[count - 1] = values[count + place] = -2;
        int64_t found[2] = {-1, -1};
        lessen_likeliest(values.data(), found, 2, count);
        if (found[0] != place || found[1] != place) return false;
    }
    if (count < 3) return true;
    const float infinite = std::numeric_limits<float>::infinity();
    values[0] = -infinite, values[count - 1] = infinite;  // whose sum is no number
    values[count + 1] = std::numeric_limits<float>::quiet_NaN();
    int64_t found[2] = {0, 0};
    lessen_likeliest(values.data(), found, 2, count);
    return found[0] == count - 1 && found[1] == -1;
}

// Products of signs as other processors of this instruction set compute them.
float wrong_elsewhere() {
    struct Restored {
        const lessen::Kernel *here = lessen::kernel;
        ~Restored() { lessen::kernel = here; }
    } before;
    if (!before.here->eights_elsewhere) return 0;
    lessen::Kernel elsewhere = *before.here;
    elsewhere.eights = before.here->eights_elsewhere, elsewhere.signs_as_numbers = nullptr;
    lessen::kernel = &elsewhere;
    float worst = 0;
    for (int64_t m : {1, 3, 17, 64})
        for (int64_t n : {1, 8, 39, 64})
            for (int64_t k : {1, 63, 64, 65, 128, 200, 1100}) worst = worst_of({worst, wrong_in_low_bits(m, n, k)});
    return worst;
}

}  // namespace

float lessen_self_check(int thorough) {
    float worst = 0;
    for (int64_t m : {1, 2, 3, 4, 5, 7, 11})
        for (int64_t n : {1, 3, 8, 17})
            for (int64_t k : {1, 15, 16, 33, 2061}) worst = worst_of({worst, wrong_in_linear(m, n, k)});
    worst = worst_of({worst, wrong_in_low_bits(5, 19, 70), wrong_in_low_bits(26, 9, 1), wrong_in_low_bits(2, 3, 0),
                      wrong_in_low_bits(33, 39, 200)});
    for (int64_t m : {1, 2, 3, 9}) worst = worst_of({worst, wrong_in_fours(m, 37, 70), wrong_in_fours(m, 16, 64)});
    for (int64_t m : {1, 3, 16, 17, 33, 64})
        for (int64_t n : {1, 8, 39, 64})
            for (int64_t k : {1, 31, 63, 64, 65, 127, 128, 200, 1100})
                if (thorough) worst = worst_of({worst, wrong_in_low_bits(m, n, k), wrong_in_fours(m, n, k)});
    if (thorough) worst = worst_of({worst, wrong_elsewhere()});
    for (int64_t count : {1, 2, 15, 16, 17, 70, 1024, 1025, 5000})
        if (!finds_the_largest(count)) return 1;
    for (int64_t dim : {1, 5, 16, 32, 64, 70})
        for (Bias bias : {Bias::none, Bias::plain, Bias::gaps})
            for (bool causal : {false, true})
                worst = worst_of({worst, wrong_in_attention({1, 2, 9, 64, 77}, 2, dim, bias, causal)});
    return worst_of({worst, wrong_in_encoder(), wrong_in_decoder(), wrong_in_head()});
}
