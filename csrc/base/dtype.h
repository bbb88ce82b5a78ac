// Tensor element types of GGUF files and their sizes: the one traits table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pyllamacpp {

// Values are the type ids of GGUF files.
enum class DType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  bf16 = 30,
};

struct DTypeTraits {
  DType type;
  const char* name;      // as users and docs write it, lower case
  uint32_t block_size;   // weights per block; a row is a whole number of blocks
  uint32_t block_bytes;  // bytes per block
};

// Every known type, ascending by id.
std::span<const DTypeTraits> dtype_table();

// nullptr when the id is not in the table.
const DTypeTraits* find_dtype(uint32_t id);
const DTypeTraits* find_dtype(std::string_view name);

// `type` must be in the table.
const DTypeTraits& traits(DType type);

// Bytes of `n` weights; `n` must be a multiple of the type's block size.
inline size_t bytes_of(DType type, uint64_t n) {
  const DTypeTraits& t = traits(type);
  return size_t(n / t.block_size * t.block_bytes);
}

}  // namespace pyllamacpp
