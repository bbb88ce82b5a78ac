// Codes of a few bits as packed panels keep them, and the bytes of expanded ones. A group is 32
// weights of each of W rows: eight steps, a step being one vector of bytes. A plane keeps kBits of
// every code in kBits vectors: vector v holds the steps v, v + kBits, v + 2 kBits ... in its bytes,
// lowest bits first. Codes of 3, 5 and 6 bits are a plane of 2 or 4 and one of the rest: the file's
// number of bytes per weight.
#pragma once

namespace pyllamacpp::cpu::PYLLAMACPP_TIER {

// The kBits of step s, from bit `to` of each byte on.
template <int kBits>
static inline B plane_step(const uint8_t* plane, int s, int to) {
  constexpr int kMask = (1 << kBits) - 1;
  return bmove(bload(plane + 4 * W * (s % kBits)), kBits * (s / kBits), to, kMask << to);
}

// From eight vectors of codes, whose bits from `from` on count.
template <int kBits>
static inline void write_plane(const uint8_t* codes, int from, uint8_t* plane) {
  constexpr int kMask = (1 << kBits) - 1;
  for (int v = 0; v < kBits; ++v) {
    B all = bmove(bload(codes + 4 * W * v), from, 0, kMask);
    for (int s = v + kBits; s < 8; s += kBits) {
      const int to = kBits * (s / kBits);
      all = bor(all, bmove(bload(codes + 4 * W * s), from, to, kMask << to));
    }
    bstore(plane + 4 * W * v, all);
  }
}

template <int kBits>
struct Group {
  static constexpr int kLow = kBits < 4 ? 2 : kBits < 8 ? 4 : 8;
  static constexpr int kHigh = kBits - kLow;
  static constexpr int64_t kBytes = kBits * 4 * W;

  // Steps in an order that takes all of a vector before the next.
  static constexpr int step(int i) { return i / (8 / kLow) + i % (8 / kLow) * kLow; }

  static inline B codes(const uint8_t* group, int s) {
    const B low = plane_step<kLow>(group, s, 0);
    if constexpr (kHigh == 0)
      return low;
    else
      return bor(low, plane_step<kHigh>(group + kLow * 4 * W, s, kLow));
  }

  static inline void write(const uint8_t* codes, uint8_t* group) {
    write_plane<kLow>(codes, 0, group);
    if constexpr (kHigh != 0) write_plane<kHigh>(codes, kLow, group + kLow * 4 * W);
  }

  // Up to so many tiles of columns taking codes apart for each of them costs less than writing them
  // out as bytes and fetching those. Codes of two planes are more work.
  static constexpr int kFewTiles = kHigh == 0 ? 16 : 4;
};

}  // namespace pyllamacpp::cpu::PYLLAMACPP_TIER
