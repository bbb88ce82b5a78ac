// What all products of matrices have in common: y = W x, or y += W x.
#include "codec.glsl"

layout(set = 0, binding = 2) restrict buffer Y { float y[]; };  // [n_cols][y_stride]
layout(push_constant) uniform Arguments {
  uint n_rows;      // of the weights
  uint n_blocks;    // of 32 columns of the weights
  uint n_cols;      // of x
  uint x_stride;    // floats; a multiple of 32, zeros behind the last column
  uint y_stride;
  uint y_offset;    // where the output of the first row goes
  uint accumulate;  // 1: y += W x
};

// Rows and columns beyond the last are left out.
void put(uint row, uint col, float value) {
  if (row >= n_rows || col >= n_cols) return;
  const uint at = col * y_stride + y_offset + row;
  y[at] = accumulate == 1 ? y[at] + value : value;
}
