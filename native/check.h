// Parts of the self-check that have files of their own: each returns the largest difference from plain loops.
#pragma once

#include "lessen.h"

float wrong_in_decoder();
float wrong_in_fours(int64_t m, int64_t n, int64_t k);
