// Products of a few columns by integer dot products.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "matvec.glsl"
#include "integer_dot.glsl"

void add_block(uint row, uint b, uint block, uint first_col) {
  uint w[8];
  for (uint t = 0; t < 8; ++t) w[t] = four_bytes(row, b, t);
  const vec4 scale = block_scale(row, b);
  for (uint c = 0; c < kCols; ++c) {
    const uint at = block_of_x(min(first_col + c, n_cols - 1), block);
    const uvec4 low = x[at], high = x[at + 1];
    ivec2 products = ivec2(0);
    for (uint i = 0; i < 4; ++i) products += ivec2(dot4(w[i], low[i]), dot4(w[4 + i], high[i]));
    sum[c] = add_products(products, scale, x[at + 2].xy, sum[c]);
  }
}
