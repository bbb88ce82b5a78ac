// y = W x for a few columns of x: a workgroup computes 32 rows, one a lane. Its kWorkers rows of
// lanes take segments of 256 columns in turn. Every output is one chain of multiply-adds over each
// segment, and the segments' sums added in ascending order: bit for bit what matmul.comp computes.
#version 450
#include "codec.glsl"

layout(constant_id = 6) const uint kWorkers = 4;
layout(constant_id = 7) const uint kCols = 1;  // columns of x that are taken together, <= kWorkers
layout(local_size_x = 32, local_size_y_id = 6) in;

layout(set = 0, binding = 1) readonly restrict buffer X { vec4 x[]; };  // [cols][x_stride]
layout(set = 0, binding = 2) restrict buffer Y { float y[]; };          // [cols][y_stride]
layout(push_constant) uniform Arguments {
  uint n_rows;      // of the weights
  uint n_blocks;    // of 32 columns of the weights
  uint n_cols;      // of x
  uint x_stride;    // floats; a multiple of 32, zeros behind the last column
  uint y_stride;
  uint y_offset;    // where the output of the first row goes
  uint accumulate;  // 1: y += W x
};

shared float partial[kCols * kWorkers * 32];

void main() {
  const uint lane = gl_LocalInvocationID.x, worker = gl_LocalInvocationID.y;
  const uint panel = gl_WorkGroupID.x, first_col = gl_WorkGroupID.y * kCols;
  const uint n_segments = (n_blocks + 7) / 8;
  float total = 0;  // of the column that this worker adds up
  for (uint first = 0; first < n_segments; first += kWorkers) {
    float sum[kCols];
    for (uint c = 0; c < kCols; ++c) sum[c] = 0;
    const uint segment = first + worker;
    if (segment < n_segments) {
      const uint row = (panel * n_segments + segment) * kTileWords * 32 + lane;
      const uint end = min(8, n_blocks - segment * 8);
      for (uint b = 0; b < end; ++b)
        for (uint u = 0; u < 4; ++u) {
          float w[8];
          decode(row, b, u, w);
          const uint k = (segment * 8 + b) * 8 + u * 2;
          for (uint c = 0; c < kCols; ++c) {
            // Columns beyond the last are computed from it and not written.
            const uint at = min(first_col + c, n_cols - 1) * (x_stride / 4) + k;
            const vec4 a = x[at], b4 = x[at + 1];
            for (uint i = 0; i < 4; ++i) sum[c] = fma(w[i], a[i], sum[c]);
            for (uint i = 0; i < 4; ++i) sum[c] = fma(w[4 + i], b4[i], sum[c]);
          }
        }
    }
    for (uint c = 0; c < kCols; ++c) partial[(c * kWorkers + worker) * 32 + lane] = sum[c];
    barrier();
    if (worker < kCols)
      for (uint i = 0; i < min(kWorkers, n_segments - first); ++i)
        total += partial[(worker * kWorkers + i) * 32 + lane];
    barrier();
  }
  const uint out_row = panel * 32 + lane, col = first_col + worker;
  if (worker < kCols && col < n_cols && out_row < n_rows) {
    const uint at = col * y_stride + y_offset + out_row;
    y[at] = accumulate == 1 ? y[at] + total : total;
  }
}
