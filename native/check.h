// Parts of the self-check that have files of their own: each returns the largest difference from plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "lessen.h"

// The largest difference; one that is no number is larger than all, and would be smaller than none in std::max.
static inline float worst_of(std::initializer_list<float> differences) {
    float worst = 0;
    for (const float each : differences) {
        if (std::isnan(each)) return INFINITY;
        worst = std::max(worst, each);
    }
    return worst;
}

float wrong_in_encoder();
float wrong_in_decoder();
float wrong_in_head();
float wrong_in_fours(int64_t m, int64_t n, int64_t k);

// Matrices and norms in float32 with made-up numbers, which it keeps, and what plain loops make of them.
struct Loops {
    std::vector<std::vector<float>> kept;

    const float *numbers(int64_t count, double size, double offset = 0) {
        kept.emplace_back(count);
        for (int64_t i = 0; i < count; i++)
            kept.back()[i] = float(offset + size * std::sin(0.7 * double(i) + double(kept.size())));
        return kept.back().data();
    }

    lessen_matrix matrix(int64_t n, int64_t k, bool bias) {
        const float *weight = numbers(n * k, 1 / std::sqrt(double(k)));
        return {LESSEN_F32, n, k, weight, nullptr, bias ? numbers(n, 0.5) : nullptr};
    }

    lessen_norm norm(int64_t count, bool bias) {
        const float *weight = numbers(count, 0.5, 1);
        return {weight, bias ? numbers(count, 0.5) : nullptr, 1e-6f};
    }

    static std::vector<double> product(const lessen_matrix &matrix, const std::vector<double> &values) {
        std::vector<double> out(matrix.n);
        for (int64_t c = 0; c < matrix.n; c++) {
            out[c] = matrix.bias ? matrix.bias[c] : 0;
            for (int64_t i = 0; i < matrix.k; i++)
                out[c] += values[i] * static_cast<const float *>(matrix.weight)[c * matrix.k + i];
        }
        return out;
    }

    static void normed(double *row, int64_t count, const lessen_norm &by, bool rms) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < count; i++) mean += rms ? 0 : row[i] / double(count);
        for (int64_t i = 0; i < count; i++) square += (row[i] - mean) * (row[i] - mean) / double(count);
        for (int64_t i = 0; i < count; i++)
            row[i] = (row[i] - mean) / std::sqrt(square + double(by.eps)) * by.weight[i] + (by.bias ? by.bias[i] : 0);
    }
};
