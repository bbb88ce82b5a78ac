// Rotates queries and keys, scales queries for attention, and stores keys and values in the cache as
// halves, two dimensions a word. An invocation makes one word (or two floats of a query); values
// beyond the range of halves saturate.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "rotate.glsl"

layout(local_size_x = 64) in;
layout(set = 0, binding = 3) writeonly buffer Q { float q_out[]; };  // [rows][x_stride]

void main() {
  const uint row = gl_WorkGroupID.y, at = gl_GlobalInvocationID.x;
  if (at >= n_heads * head_words) return;
  const uint h = at / head_words, j = at % head_words;
  const uint head = row * x_stride + (first_head + h) * head_words * 2;
  const vec2 value = vec2(rotated(head, row, 2 * j), rotated(head, row, 2 * j + 1));
  if (what == 0) {
    q_out[head + 2 * j] = value.x * scale;
    q_out[head + 2 * j + 1] = value.y * scale;
    return;
  }
  const uint page = (slots[row] / 32 * n_heads + h) * 32 * head_words, offset = slots[row] % 32;
  const uint halves_word = packHalf2x16(clamp(value, -65504.0, 65504.0));
  kv[page + (what == 1 ? j * 32 + offset : offset * head_words + j)] = halves_word;
}
