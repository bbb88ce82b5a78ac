// y = W x for a few columns of x: a workgroup computes 32 rows, one a lane. Its kWorkers rows of
// lanes take segments of 256 columns in turn. Every output is one chain of multiply-adds over each
// segment, and the segments' sums added in ascending order: bit for bit what matmul.comp computes.
#include "product.glsl"

layout(constant_id = 6) const uint kWorkers = 4;
layout(constant_id = 7) const uint kCols = 1;  // columns of x that are taken together, <= kWorkers
layout(local_size_x = 32, local_size_y_id = 6) in;

shared float partial[kCols * kWorkers * 32];

float sum[kCols];  // of a lane's segment

// Adds to `sum` the products of block b (of 32) of a tile's row with block `block` of x, of the
// columns from first_col on. Those beyond the last are computed from it and not written.
void add_block(uint row, uint b, uint block, uint first_col);

void main() {
  const uint lane = gl_LocalInvocationID.x, worker = gl_LocalInvocationID.y;
  const uint panel = gl_WorkGroupID.x, first_col = gl_WorkGroupID.y * kCols;
  const uint n_segments = (n_blocks + 7) / 8;
  float total = 0;  // of the column that this worker adds up
  for (uint first = 0; first < n_segments; first += kWorkers) {
    for (uint c = 0; c < kCols; ++c) sum[c] = 0;
    const uint segment = first + worker;
    if (segment < n_segments) {
      const uint row = (panel * n_segments + segment) * kTileWords * 32 + lane;
      const uint end = min(8, n_blocks - segment * 8);
      for (uint b = 0; b < end; ++b) add_block(row, b, segment * 8 + b, first_col);
    }
    for (uint c = 0; c < kCols; ++c) partial[(c * kWorkers + worker) * 32 + lane] = sum[c];
    barrier();
    if (worker < kCols)
      for (uint i = 0; i < min(kWorkers, n_segments - first); ++i)
        total += partial[(worker * kWorkers + i) * 32 + lane];
    barrier();
  }
  if (worker < kCols) put(panel * 32 + lane, first_col + worker, total);
}
