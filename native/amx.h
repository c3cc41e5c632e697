// Products of whole numbers in the tiles of AMX: 16 rows by 64 bytes, multiplied at once.
#pragma once

#include "kernels.h"

namespace lessen::tiles {

constexpr int64_t rows = 16;     // of a tile
constexpr int64_t columns = 32;  // of a panel: two tiles of weights

// Whether the processor has them, and the system lets this process use them.
bool usable();

// Values in tiles of 16 rows by 64: for weights that are signs as they lie, [m / 16][depth / 64][16][64]; for others
// four neighbours of a row side by side, [m / 16][depth / 64][16][16][4].
void arrange(const int8_t *values, int64_t m, int64_t depth, bool signs, int8_t *to);

// As Kernel::panels8, for values so arranged.
void panels8(const Int8 &, int64_t first, int64_t last, int8_t *space);

}  // namespace lessen::tiles
