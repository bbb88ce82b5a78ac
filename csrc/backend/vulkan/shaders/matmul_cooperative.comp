// matmul_dot.comp's Y = W X by cooperative matrices of bytes: the subgroups of a workgroup share the
// products of 64 rows and 64 columns. Sums of bytes are exact in any order, and what becomes of them
// is the same, so that the bits are those of matmul_dot.comp.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_EXT_spirv_intrinsics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#include "product.glsl"
#include "integer_dot.glsl"

// A shape of the device's own, M x K by K x N: M and N divide 64, K divides 32.
layout(constant_id = 6) const uint kM = 8;
layout(constant_id = 7) const uint kN = 8;
layout(constant_id = 8) const uint kK = 8;
layout(constant_id = 9) const uint kSpan = 16;  // of k, multiplied for the sum of half a block: 16 or 32

layout(local_size_x = 256) in;

// Bytes of rows and columns, eight at a time. They begin every 48 bytes, so that those of neighbours
// lie in different banks. Where the halves of a block have scales of their own, 16 zeros stand
// between the halves of x: the 32 bytes from its start, and those from the zeros on, are one half.
shared uvec2 w_tile[64 * 6];
shared uvec2 x_tile[64 * 6];
shared ivec4 products[64 * 16];  // [columns][rows / 4]
shared vec4 w_scale[64];
shared uvec2 x_scale[64];

// The sums of a block, or of its half number `part`, into `products`.
void multiply(uint part) {
  const uint begin = kHalves && kSpan == 16 ? part * 16 : 0;
  const uint end = kHalves && kSpan == 16 ? begin + 16 : 32;
  for (uint tile = gl_SubgroupID; tile < (64 / kM) * (64 / kN); tile += gl_NumSubgroups) {
    const uint row = tile % (64 / kM) * kM, col = tile / (64 / kM) * kN;
    coopmat<int, gl_ScopeSubgroup, kM, kN, gl_MatrixUseAccumulator> sums =
        coopmat<int, gl_ScopeSubgroup, kM, kN, gl_MatrixUseAccumulator>(0);
    for (uint k = begin; k < end; k += kK) {
      coopmat<int8_t, gl_ScopeSubgroup, kM, kK, gl_MatrixUseA> w;
      coopmat<int8_t, gl_ScopeSubgroup, kK, kN, gl_MatrixUseB> columns;
      coopMatLoad(w, w_tile, row * 6 + k / 8, 6, gl_CooperativeMatrixLayoutRowMajor);
      coopMatLoad(columns, x_tile, col * 6 + part * 2 + k / 8, 6, gl_CooperativeMatrixLayoutColumnMajor);
      sums = coopMatMulAdd(w, columns, sums);
    }
    coopMatStore(sums, products, col * 16 + row / 4, 16, gl_CooperativeMatrixLayoutColumnMajor);
  }
}

void main() {
  const uint t = gl_LocalInvocationID.x;
  const uint first_row = gl_WorkGroupID.x * 64, first_col = gl_WorkGroupID.y * 64;
  const uint n_segments = (n_blocks + 7) / 8, n_panels = (n_rows + 31) / 32;
  // What this thread brings: 8 weights of a row, 8 values of a column. Rows and columns beyond the
  // last repeat it.
  const uint own_row = t % 64, own_u = t / 64;
  const uint panel = min(gl_WorkGroupID.x * 2 + own_row / 32, n_panels - 1);
  const uint own_col = t / 4, own_part = t % 4;
  if (kHalves && own_part < 2) x_tile[own_col * 6 + 2 + own_part] = uvec2(0);
  // What it computes of the products: 4 rows of 4 columns.
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
      w_tile[own_row * 6 + own_u] =
          uvec2(four_bytes(row, b, own_u * 2), four_bytes(row, b, own_u * 2 + 1));
      x_tile[own_col * 6 + own_part + (kHalves && own_part >= 2 ? 2 : 0)] =
          own_part % 2 == 0 ? own_x.xy : own_x.zw;
      if (own_u == 0) w_scale[own_row] = block_scale(row, b);
      if (own_part == 0) x_scale[own_col] = x[at + 2].xy;
      ivec4 parts[2][4];  // of a block's sums
      for (uint c = 0; c < 4; ++c) parts[1][c] = ivec4(0);
      for (uint part = 0; part < (kHalves ? 2 : 1); ++part) {
        barrier();
        multiply(part);
        barrier();
        for (uint c = 0; c < 4; ++c) parts[part][c] = products[(col_quad * 4 + c) * 16 + row_quad];
      }
      for (uint c = 0; c < 4; ++c)
        for (uint r = 0; r < 4; ++r)
          sum[c][r] = add_products(ivec2(parts[0][c][r], parts[1][c][r]), w_scale[row_quad * 4 + r],
                                   x_scale[col_quad * 4 + c], sum[c][r]);
      barrier();
    }
    for (uint c = 0; c < 4; ++c) total[c] += sum[c];
  }
  for (uint c = 0; c < 4; ++c)
    for (uint r = 0; r < 4; ++r) put(first_row + row_quad * 4 + r, first_col + col_quad * 4 + c, total[c][r]);
}
