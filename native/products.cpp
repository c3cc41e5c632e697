// How the work of each product is shared among threads, and what becomes of activations before it.
#include "products.h"

#include <algorithm>

#include "dispatch.h"
#include "memory.h"
#include "threads.h"

namespace lessen {
namespace {

// Panels a thread takes at a time: few enough that a busy core does not keep the others waiting.
constexpr int64_t PANELS = 8;

// Rows of activations a thread makes at a time.
constexpr int64_t MADE = 8;

// Rows from which on tiles multiply signs, written out as whole numbers, faster than bits are counted. Tiles do 1024
// products a cycle against 410 (count512.h), but take rows by 16 and signs have to be written out. The sums are the
// same.
constexpr int64_t ROWS_FOR_TILES = 24;

using Panels = decltype(Kernel::panels);

// Whether there is nothing to add up; then rows of the result, if there are any, are the bias.
bool only_bias(const float *bias, float *out, int64_t m, int64_t n, int64_t k) {
    if (m > 0 && n > 0 && k > 0) return false;
    for (int64_t row = 0; row < m; row++)
        for (int64_t column = 0; column < n; column++) *out++ = bias ? bias[column] : 0;
    return true;
}

void in_panels(const Linear &product, Panels work_on, int threads) {
    if (only_bias(product.bias, product.out, product.m, product.n, product.k)) return;
    threads = worth(product.m * product.n * product.k, threads);
    const int64_t panels = (product.n + kernel->columns - 1) / kernel->columns;
    const int64_t step = std::max<int64_t>(1, std::min(PANELS, panels / (4 * threads)));
    in_turns(panels, step, threads, [&](int64_t first, int64_t last) {
        // In the time this takes, each other thread takes a step too.
        work_on(product, first, last, first + threads * step);
    });
}

// Row `row` of a source, of k numbers.
const float *made_row(const Source &source, int64_t row, int64_t k) {
    const float *from = source.from + row * source.apart;
    if (source.what == Source::plain) return from;
    float *to = source.to + row * k;
    if (source.what == Source::summed)
        kernel->add_norm(from, source.added + row * k, source.factor ? source.factor + row * k : nullptr, source.norm,
                         k, to);
    else if (source.what == Source::normed)
        kernel->norm_row(from, source.norm, source.rms, k, to);
    else
        kernel->activate(source.activation, source.centre, from, k, to);
    if (source.gate) {
        const float *gate = source.gate + row * source.apart;
        for (int64_t i = 0; i < k; i++) to[i] *= gate[i];
    }
    return to;
}

// What rows of activations become.
enum class Made { numbers, signs, signs_as_numbers, grouped };

// Rows of activations as a product takes them.
struct Rows {
    int64_t depth;
    int8_t *numbers;  // [m][depth], with room for a multiple of 16 rows; or null:
    uint64_t *words;  // then these, [m][depth / 64]
    float *steps;     // [m], or of each group, [m][depth / 32]
    int32_t *totals;  // [m]
    float *sums;      // of each group, [m][depth / 32]
};

// Makes the activations of a product with low-bit weights, a few rows at a time on each thread.
Rows rows_of(const Source &source, int64_t m, int64_t k, Made made, int threads) {
    thread_local Space<int8_t> numbers;
    thread_local Space<uint64_t> words;
    thread_local Space<float> steps, sums;
    thread_local Space<int32_t> totals;
    const int64_t depth = round_up(k, made == Made::grouped ? GROUP : 64);
    const int64_t groups = made == Made::grouped ? depth / GROUP : 1;
    const Rows rows{depth,
                    made == Made::signs ? nullptr : numbers.of(round_up(m, 16) * depth),
                    made == Made::signs ? words.of(m * depth / 64) : nullptr,
                    steps.of(m * groups),
                    totals.of(m),
                    sums.of(m * groups)};
    in_turns(m, MADE, worth(m * k, threads), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; row++) {
            const float *from = made_row(source, row, k);
            switch (made) {
            case Made::numbers:
                rows.steps[row] = kernel->quantize(from, k, depth, rows.numbers + row * depth, &rows.totals[row]);
                break;
            case Made::signs_as_numbers:
                rows.steps[row] = kernel->signs_as_numbers(from, k, depth, rows.numbers + row * depth);
                break;
            case Made::grouped:
                kernel->quantize_groups(from, k, rows.numbers + row * depth, rows.steps + row * groups,
                                        rows.sums + row * groups);
                break;
            case Made::signs:
                rows.steps[row] = kernel->to_signs(from, k, rows.words + row * (depth / 64));
            }
        }
    });
    return rows;
}

}  // namespace

const float *plain_rows(const Source &source, int64_t m, int64_t k, int threads) {
    if (source.what == Source::plain) return source.from;
    in_turns(m, MADE, worth(m * k * 8, threads), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; row++) made_row(source, row, k);
    });
    return source.to;
}

namespace {

void linear8(const Source &values, const int8_t *weight, Signs signs, const float *scales, const float *bias,
             float *out, int64_t m, int64_t n, int64_t k, int threads, Made made = Made::numbers) {
    threads = worth(m * n * k, threads);
    const Rows rows = rows_of(values, m, k, made, threads);
    const int64_t panels = (n + kernel->columns8 - 1) / kernel->columns8;
    const int64_t step = std::max<int64_t>(1, std::min(PANELS, panels / (4 * threads)));
    const Int8 product{rows.numbers, rows.steps, rows.totals, weight, signs, scales, bias, out, m, n, rows.depth};
    in_turns(panels, step, threads, [&](int64_t first, int64_t last) {
        thread_local Space<int8_t> space;
        kernel->panels8(product, first, last, space.of(kernel->columns8 * product.depth));
    });
}

void linear4(const Source &values, const uint8_t *blocks, const float *bias, float *out, int64_t m, int64_t n,
             int64_t k, int threads) {
    threads = worth(m * n * k, threads);
    const Rows rows = rows_of(values, m, k, Made::grouped, threads);
    const int64_t all = (n + SIXTEEN - 1) / SIXTEEN;
    const int64_t step = std::max<int64_t>(1, std::min(PANELS, all / (4 * threads)));
    const Fours product{rows.numbers, rows.steps, rows.sums, blocks, bias, out, m, n, rows.depth / GROUP};
    in_turns(all, step, threads, [&](int64_t first, int64_t last) { kernel->sixteens(product, first, last); });
}

// Products with signs, of which step(first, last) does some eights.
template <class Step>
void in_eights(int64_t n, int threads, const Step &step) {
    const int64_t eights = (n + 7) / 8;
    in_turns(eights, std::max<int64_t>(1, std::min(4 * PANELS, eights / (4 * threads)) / 4 * 4), threads, step);
}

void linear1(const Source &values, Signs signs, const float *scales, const float *bias, float *out, int64_t m,
             int64_t n, int64_t k, int threads) {
    if (kernel->signs_as_numbers && m >= ROWS_FOR_TILES) {
        linear8(values, nullptr, signs, scales, bias, out, m, n, k, threads, Made::signs_as_numbers);
        return;
    }
    threads = worth(m * n * k / 16, threads);
    const Rows rows = rows_of(values, m, k, Made::signs, threads);
    const Binary product{rows.words, rows.steps, signs, scales, bias, out, m, n, k, rows.depth / 64};
    in_eights(n, threads, [&](int64_t first, int64_t last) { kernel->eights(product, first, last); });
}

void linear1a32(const float *values, Signs signs, const float *scales, const float *bias, float *out, int64_t m,
                int64_t n, int64_t k, int threads) {
    const Signed product{values, signs, scales, bias, out, m, n, k, round_up(k, 64) / 64};
    in_eights(n, worth(m * n * k, threads), [&](int64_t first, int64_t last) {
        thread_local Space<float> space;
        kernel->signed_eights(product, first, last, space.of(8 * product.words * 64));
    });
}

}  // namespace

void multiply(const lessen_matrix &matrix, const Source &values, float *out, int64_t m, int threads) {
    const int64_t n = matrix.n, k = matrix.k;
    if (only_bias(matrix.bias, out, m, n, k)) return;
    const auto signs = static_cast<Signs>(matrix.weight);
    switch (matrix.kind) {
    case LESSEN_W8A8:
        linear8(values, static_cast<const int8_t *>(matrix.weight), nullptr, matrix.scales, matrix.bias, out, m, n, k,
                threads);
        return;
    case LESSEN_W1A8:
        linear8(values, nullptr, signs, matrix.scales, matrix.bias, out, m, n, k, threads);
        return;
    case LESSEN_W1A1:
        linear1(values, signs, matrix.scales, matrix.bias, out, m, n, k, threads);
        return;
    case LESSEN_W1A32:
        linear1a32(plain_rows(values, m, k, threads), signs, matrix.scales, matrix.bias, out, m, n, k, threads);
        return;
    case LESSEN_BF16:
        in_panels({plain_rows(values, m, k, threads), matrix.weight, matrix.bias, out, m, n, k}, kernel->panels16,
                  threads);
        return;
    case LESSEN_W8A32:
        in_panels({plain_rows(values, m, k, threads), matrix.weight, matrix.bias, out, m, n, k, matrix.scales},
                  kernel->panels_of_bytes, threads);
        return;
    case LESSEN_W4A8:
        linear4(values, static_cast<const uint8_t *>(matrix.weight), matrix.bias, out, m, n, k, threads);
        return;
    default:
        in_panels({plain_rows(values, m, k, threads), matrix.weight, matrix.bias, out, m, n, k}, kernel->panels,
                  threads);
    }
}

void product_of(const lessen_matrix &matrix, const float *values, float *out, int64_t m, int threads) {
    multiply(matrix, {Source::plain, values, matrix.k}, out, m, threads);
}

}  // namespace lessen

using namespace lessen;

int lessen_linear_f32(const float *values, const float *weight, const float *bias, float *out, int64_t m,
                       int64_t n, int64_t k, int threads) {
    return result_of([&] { in_panels({values, weight, bias, out, m, n, k}, kernel->panels, threads); });
}

int lessen_linear_bf16(const float *values, const uint16_t *weight, const float *bias, float *out, int64_t m,
                        int64_t n, int64_t k, int threads) {
    return result_of([&] { in_panels({values, weight, bias, out, m, n, k}, kernel->panels16, threads); });
}

int lessen_linear_w8a8(const float *values, const int8_t *arranged, const float *scales, const float *bias, float *out,
                        int64_t m, int64_t n, int64_t k, int threads) {
    if (only_bias(bias, out, m, n, k)) return 0;
    return result_of([&] { linear8({Source::plain, values, k}, arranged, nullptr, scales, bias, out, m, n, k, threads); });
}

int lessen_linear_w8a32(const float *values, const int8_t *weight, const float *scales, const float *bias,
                         float *out, int64_t m, int64_t n, int64_t k, int threads) {
    return result_of([&] { in_panels({values, weight, bias, out, m, n, k, scales}, kernel->panels_of_bytes, threads); });
}

int lessen_linear_w4a8(const float *values, const uint8_t *arranged, const float *bias, float *out, int64_t m,
                        int64_t n, int64_t k, int threads) {
    if (only_bias(bias, out, m, n, k)) return 0;
    return result_of([&] { linear4({Source::plain, values, k}, arranged, bias, out, m, n, k, threads); });
}

int lessen_linear_w1a8(const float *values, const uint64_t *arranged, const float *scales, const float *bias,
                        float *out, int64_t m, int64_t n, int64_t k, int threads) {
    if (only_bias(bias, out, m, n, k)) return 0;
    return result_of([&] { linear8({Source::plain, values, k}, nullptr, arranged, scales, bias, out, m, n, k, threads); });
}

int lessen_linear_w1a1(const float *values, const uint64_t *arranged, const float *scales, const float *bias,
                        float *out, int64_t m, int64_t n, int64_t k, int threads) {
    if (only_bias(bias, out, m, n, k)) return 0;
    return result_of([&] { linear1({Source::plain, values, k}, arranged, scales, bias, out, m, n, k, threads); });
}

int lessen_linear_w1a32(const float *values, const uint64_t *arranged, const float *scales, const float *bias,
                         float *out, int64_t m, int64_t n, int64_t k, int threads) {
    if (only_bias(bias, out, m, n, k)) return 0;
    return result_of([&] { linear1a32(values, arranged, scales, bias, out, m, n, k, threads); });
}
