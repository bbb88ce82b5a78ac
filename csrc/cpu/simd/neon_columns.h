// What the NEON tiers share whose byte product takes one column: the order of a panel and its
// tiles.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

inline constexpr int kTileCols = 4;
inline constexpr int kTileColsK = 3;

// dst[j][r] = the j-th four bytes of row r: the interleaving store of 4 x 4 words, twice.
static inline void interleave(const uint8_t (*rows)[32], uint8_t* dst) {
  for (int h = 0; h < 2; ++h) {
    uint32x4x4_t r;
    for (int i = 0; i < W; ++i) r.val[i] = vreinterpretq_u32_u8(vld1q_u8(rows[i] + 16 * h));
    vst4q_u32(reinterpret_cast<uint32_t*>(dst + 64 * h), r);
  }
}

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER

#include "cpu/simd/plain_sums.h"
