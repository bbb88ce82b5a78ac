// How weights lie in device memory: word-aligned for every type, and so that neighbouring lanes
// read neighbouring words. A tile is 256 columns of 32 rows (a panel); word j of its 32 rows lies
// together. Of a row a tile has its codes in planes (of a word of a plane of b bits, weight i lies
// in bits b (i / 4) .. of byte i % 4), then its scales as the file has them: the same bytes, within
// 2%, as in the file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "base/thread_pool.h"

namespace pyllamacpp::vk {

inline constexpr int64_t kPanelRows = 32;
inline constexpr int64_t kTileCols = 256;

// The specialization constants of shaders/codec.glsl, in their order.
struct WeightLayout {
  uint32_t type;        // DType
  uint32_t low_bits;    // of a code (of the whole value: 32 and 16 are floats)
  uint32_t high_bits;   // in a second plane
  uint32_t high_word;   // where that begins in a tile's row
  uint32_t scale_word;  // where the scales begin
  uint32_t tile_words;  // words of a tile's row
};

// nullptr: not a type of weights.
const WeightLayout* find_layout(DType type);

// Bytes of one panel of rows of `cols` weights.
inline size_t panel_bytes(const WeightLayout& layout, int64_t cols) {
  const int64_t tiles = (cols + kTileCols - 1) / kTileCols;
  return size_t(tiles * kPanelRows) * layout.tile_words * sizeof(uint32_t);
}

// Writes the panel of rows [row, row + 32) of the source; rows and columns beyond the last are 0.
void pack_panel(const WeightLayout& layout, const WeightSource& source, int64_t row, uint32_t* out);

// Writes n_panels panels, that of rows [row, row + 32) first, one after another.
void pack_panels(ThreadPool& pool, const WeightLayout& layout, const WeightSource& source,
                 int64_t row, int64_t n_panels, std::byte* out);

}  // namespace pyllamacpp::vk
