// The vocabulary of ARMv8.2 with the dot product instructions.
#pragma once

#include "cpu/simd/neon_sdot.h"
// used by the sums of columns
#include "cpu/simd/neon_columns.h"
