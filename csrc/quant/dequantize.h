// Stored weights to float32, in plain scalar code: the oracle of every kernel, and what embedding
// rows go through.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace pyllamacpp {

// Writes n floats from n stored weights; n is a multiple of the type's block size. Throws
// Error(unsupported) for a type that has no dequantizer.
void dequantize(DType type, const void* src, float* dst, int64_t n);

bool can_dequantize(DType type);

}  // namespace pyllamacpp
