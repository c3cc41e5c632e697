// What an encoder's layers begin with: rows of tables, summed and normed.
#include "crew.h"
#include "dispatch.h"
#include "memory.h"
#include "products.h"
#include "threads.h"

namespace lessen {
namespace {

// Tokens a thread takes at a time.
constexpr int64_t TOKENS = 8;

// A row of the token table.
Stored row_of(const lessen_matrix &table, int64_t id) {
    const auto *bytes = static_cast<const char *>(table.weight);
    if (table.kind == LESSEN_W8A32) return {Stored::As::bytes, bytes + id * table.k, table.scales[id]};
    if (table.kind == LESSEN_W1A32) return {Stored::As::signs, bytes + id * ((table.k + 63) / 64) * 8, table.scales[id]};
    return {Stored::As::numbers, bytes + id * table.k * int64_t(sizeof(float)), 1.0f};
}

struct Token {
    int64_t position, segment;
};

// Where each token stands; false where a table has no row for one.
bool places(const lessen_embeddings &tables, const int64_t *ids, const int64_t *segments, const int64_t *lengths,
            int64_t rows, Token *tokens) {
    int64_t token = 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t place = 0; place < lengths[row]; place++, token++) {
            tokens[token] = {place + tables.first, segments ? segments[token] : 0};
            if (ids[token] < 0 || ids[token] >= tables.token.n) return false;
            if (tables.position && tokens[token].position >= tables.positions) return false;
            if (tables.segment && (tokens[token].segment < 0 || tokens[token].segment >= tables.segments)) return false;
        }
    return true;
}

}  // namespace
}  // namespace lessen

using namespace lessen;

int lessen_embed(const lessen_embeddings *tables, const int64_t *ids, const int64_t *segments, const int64_t *lengths,
                 int64_t rows, float *out, int threads) {
    int64_t m = 0;
    for (int64_t row = 0; row < rows; row++) m += lengths[row];
    if (m <= 0) return 0;
    bool inside = true;
    const int failed = result_of([&] {
        thread_local Space<Token> of_tokens;
        thread_local Space<float> of_narrow;
        Token *tokens = of_tokens.of(m);
        if (!(inside = places(*tables, ids, segments, lengths, rows, tokens))) return;
        const bool widened = tables->widen.n > 0;
        const int64_t read = tables->token.k, width = widened ? tables->widen.n : read;
        float *looked_up = widened ? of_narrow.of(m * read) : out;
        threads = worth(m * width * 8, threads);
        const auto in_some = [&](const auto &of_token) {
            in_turns(m, TOKENS, threads, [&](int64_t first, int64_t last) {
                for (int64_t token = first; token < last; token++) of_token(token);
            });
        };
        const auto sum = [&](int64_t token) {
            float *to = out + token * width;
            if (tables->segment)
                for (int64_t i = 0; i < width; i++) to[i] += tables->segment[tokens[token].segment * width + i];
            const Norm &norm = tables->norm;
            if (tables->position)
                kernel->add_norm(to, tables->position + tokens[token].position * width, nullptr, norm, width, to);
            else
                kernel->norm_row(to, norm, false, width, to);
        };
        const auto row = [&](int64_t token) {
            kernel->read_row(row_of(tables->token, ids[token]), read, looked_up + token * read);
        };
        if (!widened) return in_some([&](int64_t token) { row(token), sum(token); });
        in_some(row);
        product_of(tables->widen, looked_up, out, m, threads);
        in_some(sum);
    });
    return inside ? failed : 2;
}
