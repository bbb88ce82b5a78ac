// Products of a few columns, in floats.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "matvec.glsl"

layout(set = 0, binding = 1) readonly restrict buffer X { vec4 x[]; };  // [n_cols][x_stride / 4]

void add_block(uint row, uint b, uint block, uint first_col) {
  for (uint u = 0; u < 4; ++u) {
    float w[8];
    decode(row, b, u, w);
    for (uint c = 0; c < kCols; ++c) {
      const uint at = min(first_col + c, n_cols - 1) * (x_stride / 4) + block * 8 + u * 2;
      const vec4 low = x[at], high = x[at + 1];
      for (uint i = 0; i < 4; ++i) sum[c] = fma(w[i], low[i], sum[c]);
      for (uint i = 0; i < 4; ++i) sum[c] = fma(w[4 + i], high[i], sum[c]);
    }
  }
}
