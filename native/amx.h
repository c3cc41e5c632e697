// Products of whole numbers in the tiles of AMX: 16 rows by 64 bytes, multiplied at once.
#pragma once

#include "kernels.h"

namespace lessen::tiles {

constexpr int64_t rows = 16;  // of a tile

// Whether the processor has them, and the system lets this process use them.
bool usable();

// As Kernel::panels8; `values` have room for a multiple of 16 rows.
void panels8(const Int8 &, int64_t first, int64_t last, int8_t *space);

}  // namespace lessen::tiles
