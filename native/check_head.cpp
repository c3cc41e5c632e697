// Whether an exit that names tokens computes what plain loops do, and how far the likeliest is ahead.
#include "check.h"

#include <algorithm>

namespace {

struct Head : Loops {
    int64_t width, words;
    lessen_head head{};

    // `listed`: RMSNorm, a correction and one outcome more; else LayerNorm and a scale.
    Head(int64_t width, int64_t words, bool listed) : width(width), words(words) {
        head.norm = norm(width, !listed), head.rms = listed, head.scale = listed ? 1.0f : 0.25f;
        head.rows = matrix(words, width, false);
        if (listed) head.down = matrix(7, width, false), head.up = matrix(width, 7, false);
        if (listed) head.elsewhere = matrix(1, width, true);
    }

    float wrong(int64_t m) {
        const int64_t outcomes = words + head.elsewhere.n;
        const float *hidden = numbers(m * width, 1);
        std::vector<float> out(m * outcomes);
        lessen_outcomes(&head, hidden, out.data(), m, 2);
        float worst = 0;
        for (int64_t row = 0; row < m; row++) {
            std::vector<double> x(hidden + row * width, hidden + (row + 1) * width);
            normed(x.data(), width, head.norm, head.rms);
            if (head.down.n) {
                const std::vector<double> added = product(head.up, product(head.down, x));
                for (int64_t i = 0; i < width; i++) x[i] += added[i];
            }
            const std::vector<double> rest = head.elsewhere.n ? product(head.elsewhere, x) : std::vector<double>();
            for (double &value : x) value *= double(head.scale);
            std::vector<double> expected = product(head.rows, x);
            expected.insert(expected.end(), rest.begin(), rest.end());
            for (int64_t i = 0; i < outcomes; i++)
                worst = worst_of({worst, std::abs(float(expected[i]) - out[row * outcomes + i])});
        }
        return worst / float(2 * width);
    }
};

// Of numbers whose largest stands at `place`, all others up to so far below it.
float wrong_in_lead(int64_t count, int64_t place, double far) {
    std::vector<float> values(2 * count);
    for (int64_t i = 0; i < 2 * count; i++) values[i] = float(5 - far * (0.01 + std::abs(std::sin(double(i % count)))));
    values[place] = values[count + place] = 5;
    double second = -INFINITY, rest = 0, moment = 0;
    for (int64_t i = 0; i < count; i++) {
        if (i == place) continue;
        const double apart = double(values[i]) - 5;
        second = std::max(second, apart), rest += std::exp(apart), moment += std::exp(apart) * apart;
    }
    int64_t places[2];
    float seconds[2], rests[2], moments[2], worst = 0;
    lessen_lead(values.data(), places, seconds, rests, moments, 2, count);
    for (int row = 0; row < 2; row++) {
        if (places[row] != place || seconds[row] != float(second)) return 1;
        worst = worst_of({worst, std::abs(float((rests[row] - rest) / (1 + rest))),
                          std::abs(float((moments[row] - moment) / (1 - moment)))});
    }
    return worst;
}

}  // namespace

float wrong_in_head() {
    float worst = 0;
    for (bool listed : {false, true})
        for (int64_t m : {1, 2, 5})
            worst = worst_of({worst, Head(37, 19, listed).wrong(m), Head(64, 80, listed).wrong(m)});
    for (int64_t count : {1, 2, 15, 16, 17, 255, 256, 257, 1000})
        for (int64_t place : {int64_t(0), count / 2, count - 1})
            for (double far : {1.0, 300.0}) worst = worst_of({worst, wrong_in_lead(count, place, far)});
    return worst;
}
