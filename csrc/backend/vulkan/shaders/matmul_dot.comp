// Y = W X for many columns by integer dot products: a workgroup computes 64 rows of 64 columns, with
// the bytes of 64 x 32 weights in shared memory at a time. The sums are those of matvec_dot.comp, in
// the same order.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "product.glsl"
#include "integer_dot.glsl"

layout(local_size_x = 256) in;

shared uvec4 w_tile[8 * 16];  // [k / 4][rows / 4], four bytes each
shared uvec4 x_tile[8 * 16];  // [k / 4][columns / 4]
shared vec4 w_scale[64];
shared uvec2 x_scale[64];

void main() {
  const uint t = gl_LocalInvocationID.x;
  const uint first_row = gl_WorkGroupID.x * 64, first_col = gl_WorkGroupID.y * 64;
  const uint n_segments = (n_blocks + 7) / 8, n_panels = (n_rows + 31) / 32;
  // What this thread brings: 8 weights of a row, 8 values of a column. Rows and columns beyond the
  // last repeat it.
  const uint own_row = t % 64, own_u = t / 64;
  const uint panel = min(gl_WorkGroupID.x * 2 + own_row / 32, n_panels - 1);
  const uint own_col = t / 4, own_part = t % 4;
  // What it computes: 4 rows of 4 columns.
  const uint row_quad = t % 16, col_quad = t / 16;
  vec4 total[4], sum[4];  // per column
  for (uint c = 0; c < 4; ++c) total[c] = vec4(0);
  for (uint segment = 0; segment < n_segments; ++segment) {
    for (uint c = 0; c < 4; ++c) sum[c] = vec4(0);
    const uint row = (panel * n_segments + segment) * kTileWords * 32 + own_row % 32;
    const uint end = min(8, n_blocks - segment * 8);
    for (uint b = 0; b < end; ++b) {
      const uint at = block_of_x(min(first_col + own_col, n_cols - 1), segment * 8 + b);
      const uvec4 own_x = x[at + own_part / 2];
      for (uint i = 0; i < 2; ++i) {
        w_tile[(own_u * 2 + i) * 16 + own_row / 4][own_row % 4] = four_bytes(row, b, own_u * 2 + i);
        x_tile[(own_part * 2 + i) * 16 + own_col / 4][own_col % 4] = own_x[own_part % 2 * 2 + i];
      }
      if (own_u == 0) w_scale[own_row] = block_scale(row, b);
      if (own_part == 0) x_scale[own_col] = x[at + 2].xy;
      barrier();
      ivec4 first[4], last[4];  // of the first and the last 16 of k
      for (uint c = 0; c < 4; ++c) first[c] = last[c] = ivec4(0);
      for (uint k = 0; k < 4; ++k) {
        const uvec4 rows = w_tile[k * 16 + row_quad], last_rows = w_tile[(k + 4) * 16 + row_quad];
        const uvec4 cols = x_tile[k * 16 + col_quad], last_cols = x_tile[(k + 4) * 16 + col_quad];
        for (uint c = 0; c < 4; ++c)
          for (uint r = 0; r < 4; ++r) {
            first[c][r] += dot4(rows[r], cols[c]);
            last[c][r] += dot4(last_rows[r], last_cols[c]);
          }
      }
      for (uint c = 0; c < 4; ++c)
        for (uint r = 0; r < 4; ++r)
          sum[c][r] = add_products(ivec2(first[c][r], last[c][r]), w_scale[row_quad * 4 + r],
                                   x_scale[col_quad * 4 + c], sum[c][r]);
      barrier();
    }
    for (uint c = 0; c < 4; ++c) total[c] += sum[c];
  }
  for (uint c = 0; c < 4; ++c)
    for (uint r = 0; r < 4; ++r) put(first_row + row_quad * 4 + r, first_col + col_quad * 4 + c, total[c][r]);
}
