// Parts of the self-check that have files of their own: each returns the largest difference from plain loops.
#pragma once

#include "lessen.h"

float wrong_in_decoder();
