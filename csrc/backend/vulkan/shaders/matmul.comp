// Y = W X for many columns: a workgroup computes 64 rows of 64 columns, expanding 64 x 32 weights
// into shared memory at a time. The sums are those of matvec.comp, in the same order.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "product.glsl"

layout(local_size_x = 256) in;
layout(set = 0, binding = 1) readonly restrict buffer X { vec4 x[]; };  // [n_cols][x_stride / 4]

shared vec4 w_tile[32 * 16];  // [k][rows / 4]
shared vec4 x_tile[32 * 16];  // [k][columns / 4]

void main() {
  const uint t = gl_LocalInvocationID.x;
  const uint first_row = gl_WorkGroupID.x * 64, first_col = gl_WorkGroupID.y * 64;
  const uint n_segments = (n_blocks + 7) / 8, n_panels = (n_rows + 31) / 32;
  // What this thread brings: 8 weights of a row, 8 values of a column. Rows and columns beyond the
  // last repeat it.
  const uint own_row = t % 64, own_u = t / 64;
  const uint panel = min(gl_WorkGroupID.x * 2 + own_row / 32, n_panels - 1);
  const uint own_col = t / 4, own_part = t % 4;
  const uint x_at = min(first_col + own_col, n_cols - 1) * (x_stride / 4) + own_part * 2;
  // What it computes: 4 rows of 4 columns.
  const uint row_quad = t % 16, col_quad = t / 16;
  vec4 total[4], sum[4];  // per column
  for (uint c = 0; c < 4; ++c) total[c] = vec4(0);
  for (uint segment = 0; segment < n_segments; ++segment) {
    for (uint c = 0; c < 4; ++c) sum[c] = vec4(0);
    const uint row = (panel * n_segments + segment) * kTileWords * 32 + own_row % 32;
    const uint end = min(8, n_blocks - segment * 8);
    for (uint b = 0; b < end; ++b) {
      float w[8];
      decode(row, b, own_u, w);
      for (uint i = 0; i < 8; ++i) w_tile[(own_u * 8 + i) * 16 + own_row / 4][own_row % 4] = w[i];
      const vec4 low = x[x_at + (segment * 8 + b) * 8], high = x[x_at + (segment * 8 + b) * 8 + 1];
      for (uint i = 0; i < 4; ++i) {
        x_tile[(own_part * 8 + i) * 16 + own_col / 4][own_col % 4] = low[i];
        x_tile[(own_part * 8 + 4 + i) * 16 + own_col / 4][own_col % 4] = high[i];
      }
      barrier();
      for (uint k = 0; k < 32; ++k) {
        const vec4 rows = w_tile[k * 16 + row_quad], cols = x_tile[k * 16 + col_quad];
        for (uint c = 0; c < 4; ++c) sum[c] = fma(rows, vec4(cols[c]), sum[c]);
      }
      barrier();
    }
    for (uint c = 0; c < 4; ++c) total[c] += sum[c];
  }
  for (uint c = 0; c < 4; ++c)
    for (uint r = 0; r < 4; ++r) put(first_row + row_quad * 4 + r, first_col + col_quad * 4 + c, total[c][r]);
}
