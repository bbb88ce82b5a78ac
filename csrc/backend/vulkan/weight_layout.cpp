#include "backend/vulkan/weight_layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/formats.h"

namespace pyllamacpp::vk {

namespace {

constexpr WeightLayout plane(DType type, uint32_t low_bits, uint32_t high_bits, uint32_t scales) {
  const uint32_t low = low_bits * 256 / 32, high = high_bits * 256 / 32;
  return {uint32_t(type), low_bits, high_bits, low, low + high, low + high + scales};
}

constexpr WeightLayout kLayouts[] = {
    plane(DType::f32, 32, 0, 0), plane(DType::f16, 16, 0, 0),   plane(DType::bf16, 16, 0, 0),
    plane(DType::q4_0, 4, 0, 4), plane(DType::q4_1, 4, 0, 8),   plane(DType::q5_0, 4, 1, 4),
    plane(DType::q5_1, 4, 1, 8), plane(DType::q8_0, 8, 0, 4),   plane(DType::q2_k, 2, 0, 5),
    plane(DType::q3_k, 2, 1, 4), plane(DType::q4_k, 4, 0, 4),   plane(DType::q5_k, 4, 1, 4),
    plane(DType::q6_k, 4, 2, 5), plane(DType::iq4_nl, 4, 0, 4), plane(DType::iq4_xs, 4, 0, 2),
};

// One row of a tile: codes in order, and the words of its scales.
struct TileRow {
  uint8_t codes[kTileCols];
  uint32_t scales[8];
  uint8_t* scale_bytes() { return reinterpret_cast<uint8_t*>(scales); }
};

void nibbles(const uint8_t* q, uint8_t* out, int half) {  // low ones first, then the high ones
  for (int i = 0; i < half; ++i) {
    out[i] = q[i] & 15;
    out[half + i] = q[i] >> 4;
  }
}

uint8_t bit(const uint8_t* bytes, int i) { return bytes[i / 8] >> (i % 8) & 1; }

// The types of 32; `i` is the block's place in the tile.
void take(const BlockQ4_0& b, int i, TileRow& row) {
  nibbles(b.q, row.codes + 32 * i, 16);
  std::memcpy(row.scale_bytes() + 2 * i, &b.d, 2);
}
void take(const BlockIQ4_NL& b, int i, TileRow& row) {
  nibbles(b.q, row.codes + 32 * i, 16);
  std::memcpy(row.scale_bytes() + 2 * i, &b.d, 2);
}
void take(const BlockQ4_1& b, int i, TileRow& row) {
  nibbles(b.q, row.codes + 32 * i, 16);
  std::memcpy(row.scale_bytes() + 4 * i, &b.d, 4);
}
void take(const BlockQ5_0& b, int i, TileRow& row) {
  nibbles(b.q, row.codes + 32 * i, 16);
  for (int k = 0; k < 32; ++k) row.codes[32 * i + k] |= uint8_t(bit(b.high, k) << 4);
  std::memcpy(row.scale_bytes() + 2 * i, &b.d, 2);
}
void take(const BlockQ5_1& b, int i, TileRow& row) {
  nibbles(b.q, row.codes + 32 * i, 16);
  for (int k = 0; k < 32; ++k) row.codes[32 * i + k] |= uint8_t(bit(b.high, k) << 4);
  std::memcpy(row.scale_bytes() + 4 * i, &b.d, 4);
}
void take(const BlockQ8_0& b, int i, TileRow& row) {
  std::memcpy(row.codes + 32 * i, b.q, 32);
  std::memcpy(row.scale_bytes() + 2 * i, &b.d, 2);
}

// The types of 256: calls f(code, i, j) for each of 256, the i-th of the j-th run of 32.
template <class F>
void for_codes(TileRow& row, const F& f) {
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 32; ++i) f(row.codes[32 * j + i], i, j);
}
uint8_t two_bits(const uint8_t* bytes, int i, int j) {
  return bytes[j / 4 * 32 + i] >> (j % 4 * 2) & 3;
}

void take(const BlockQ2_K& b, int, TileRow& row) {
  for_codes(row, [&](uint8_t& code, int i, int j) { code = two_bits(b.q, i, j); });
  std::memcpy(row.scale_bytes(), b.scales, 16);
  std::memcpy(row.scale_bytes() + 16, &b.d, 4);
}
void take(const BlockQ3_K& b, int, TileRow& row) {
  for_codes(row, [&](uint8_t& code, int i, int j) {
    code = uint8_t(two_bits(b.q, i, j) | (b.high[i] >> j & 1) << 2);
  });
  std::memcpy(row.scale_bytes(), b.scales, 12);
  std::memcpy(row.scale_bytes() + 12, &b.d, 2);
}
void take(const BlockQ4_K& b, int, TileRow& row) {
  for (int j = 0; j < 4; ++j) nibbles(b.q + 32 * j, row.codes + 64 * j, 32);
  std::memcpy(row.scale_bytes(), &b.d, 4);
  std::memcpy(row.scale_bytes() + 4, b.scales, 12);
}
void take(const BlockQ5_K& b, int, TileRow& row) {
  for (int j = 0; j < 4; ++j) nibbles(b.q + 32 * j, row.codes + 64 * j, 32);
  for_codes(row, [&](uint8_t& code, int i, int j) { code |= uint8_t((b.high[i] >> j & 1) << 4); });
  std::memcpy(row.scale_bytes(), &b.d, 4);
  std::memcpy(row.scale_bytes() + 4, b.scales, 12);
}
void take(const BlockQ6_K& b, int, TileRow& row) {
  for (int h = 0; h < 2; ++h) nibbles(b.ql + 64 * h, row.codes + 128 * h, 64);
  for_codes(row, [&](uint8_t& code, int i, int j) { code |= uint8_t(two_bits(b.qh, i, j) << 4); });
  std::memcpy(row.scale_bytes(), b.scales, 16);
  std::memcpy(row.scale_bytes() + 16, &b.d, 2);
}
void take(const BlockIQ4_XS& b, int, TileRow& row) {
  for (int j = 0; j < 8; ++j) nibbles(b.q + 16 * j, row.codes + 32 * j, 16);
  std::memcpy(row.scale_bytes(), &b.d, 8);
}

template <class Block>
void take_blocks(const std::byte* data, int n, TileRow& row) {
  for (int i = 0; i < n; ++i) {
    Block block;  // the file's blocks are not aligned
    std::memcpy(&block, data + size_t(i) * sizeof(Block), sizeof(Block));
    take(block, i, row);
  }
}

void take_blocks(DType type, const std::byte* data, int n, TileRow& row) {
  switch (type) {
    case DType::q4_0:
      return take_blocks<BlockQ4_0>(data, n, row);
    case DType::q4_1:
      return take_blocks<BlockQ4_1>(data, n, row);
    case DType::q5_0:
      return take_blocks<BlockQ5_0>(data, n, row);
    case DType::q5_1:
      return take_blocks<BlockQ5_1>(data, n, row);
    case DType::q8_0:
      return take_blocks<BlockQ8_0>(data, n, row);
    case DType::q2_k:
      return take_blocks<BlockQ2_K>(data, n, row);
    case DType::q3_k:
      return take_blocks<BlockQ3_K>(data, n, row);
    case DType::q4_k:
      return take_blocks<BlockQ4_K>(data, n, row);
    case DType::q5_k:
      return take_blocks<BlockQ5_K>(data, n, row);
    case DType::q6_k:
      return take_blocks<BlockQ6_K>(data, n, row);
    case DType::iq4_nl:
      return take_blocks<BlockIQ4_NL>(data, n, row);
    default:
      return take_blocks<BlockIQ4_XS>(data, n, row);
  }
}

// Adds bits [shift, shift + bits) of every code to a plane. Four codes in order are the same bits
// of a word's bytes, so that a shift and a mask make them bytes, and a word of bytes four codes.
void add_plane(const uint8_t* codes, uint32_t shift, uint32_t bits, uint32_t* out) {
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1), per_word = 32 / bits;
  for (uint32_t word = 0; word < uint32_t(kTileCols) / per_word; ++word)
    for (uint32_t i = 0; i < per_word / 4; ++i, codes += 4) {
      uint32_t four;
      std::memcpy(&four, codes, sizeof(four));
      out[word] |= (four >> shift & mask) << (i * bits);
    }
}

// Writes `layout.tile_words` words of one row's columns from `data` on; `n` of them exist.
void pack_row(const WeightLayout& layout, const std::byte* data, int64_t n, uint32_t* out) {
  const DType type = DType(layout.type);
  std::memset(out, 0, layout.tile_words * sizeof(uint32_t));
  if (layout.low_bits > 8) {
    std::memcpy(out, data, size_t(n) * layout.low_bits / 8);
    return;
  }
  TileRow row{};
  take_blocks(type, data, int(n / traits(type).block_size), row);
  add_plane(row.codes, 0, layout.low_bits, out);
  if (layout.high_bits)
    add_plane(row.codes, layout.low_bits, layout.high_bits, out + layout.high_word);
  std::copy_n(row.scales, layout.tile_words - layout.scale_word, out + layout.scale_word);
}

}  // namespace

const WeightLayout* find_layout(DType type) {
  for (const WeightLayout& layout : kLayouts)
    if (layout.type == uint32_t(type)) return &layout;
  return nullptr;
}

void pack_panel(const WeightLayout& layout, const WeightSource& source, int64_t row,
                uint32_t* out) {
  const size_t row_bytes = bytes_of(source.type, uint64_t(source.cols));
  const size_t tile_words = layout.tile_words, panel_rows = size_t(kPanelRows);
  const int64_t n_rows = std::min(kPanelRows, source.rows - row);
  std::vector<uint32_t> words(tile_words);
  // Written in order and never read, as it may be memory that a device sees.
  std::vector<uint32_t> tile(tile_words * panel_rows);
  for (int64_t col = 0; col < source.cols; col += kTileCols, out += tile.size()) {
    const int64_t n = std::min(kTileCols, source.cols - col);
    const size_t from = bytes_of(source.type, uint64_t(col));
    for (int64_t lane = 0; lane < n_rows; ++lane) {
      pack_row(layout, source.data.data() + size_t(row + lane) * row_bytes + from, n, words.data());
      for (size_t j = 0; j < tile_words; ++j) tile[j * panel_rows + size_t(lane)] = words[j];
    }
    std::copy(tile.begin(), tile.end(), out);
  }
}

void pack_panels(ThreadPool& pool, const WeightLayout& layout, const WeightSource& source,
                 int64_t row, int64_t n_panels, std::byte* out) {
  const size_t panel = panel_bytes(layout, source.cols);
  pool.run(pool.size(), [&](int thread) {
    for (int64_t i = thread; i < n_panels; i += pool.size())
      pack_panel(layout, source, row + i * kPanelRows,
                 reinterpret_cast<uint32_t*>(out + size_t(i) * panel));
  });
}

}  // namespace pyllamacpp::vk
