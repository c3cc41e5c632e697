// Which instruction set computes.
#pragma once

#include "kernels.h"

namespace lessen {

// The instruction set in use: the best one at first.
extern const Kernel *kernel;

// Take the set of this name; whether this processor has it.
bool use(const char *isa);

}  // namespace lessen
