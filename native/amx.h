// Products of whole numbers in the tiles of AMX: 16 rows by 64 bytes, multiplied at once.
#pragma once

#include "kernels.h"

namespace lessen::tiles {

constexpr int64_t rows = 16;     // of a tile
constexpr int64_t columns = 32;  // of a panel: two tiles of weights

// Whether the processor has them, and the system lets this process use them.
bool usable();

// Weights of 8 bits as panels8 reads them: four neighbours of a row side by side,
// [n / 32][depth / 64][2][16][16][4].
void arrange8(const int8_t *rows, int64_t n, int64_t k, int8_t *to);

// As Kernel::panels8; `values` have room for a multiple of 16 rows.
void panels8(const Int8 &, int64_t first, int64_t last, int8_t *space);

}  // namespace lessen::tiles
