// Rotates queries and keys (Su et al. 2021), scales queries for attention, and stores keys and
// values in the cache as halves, two dimensions a word. An invocation makes one word (or two floats
// of a query); values beyond the range of halves saturate.
#version 450

layout(local_size_x = 64) in;
layout(set = 0, binding = 0) readonly buffer X { float x[]; };        // [rows][x_stride]
layout(set = 0, binding = 1) readonly buffer Rope { float rope[]; };  // [rows][rope_dims]: cos, sin
layout(set = 0, binding = 2) readonly buffer Slots { uint slots[]; };  // [rows]: page * 32 + offset
layout(set = 0, binding = 3) writeonly buffer Q { float q_out[]; };    // [rows][x_stride]
layout(set = 0, binding = 4) writeonly buffer Kv { uint kv[]; };       // see attention.comp
layout(push_constant) uniform Arguments {
  uint what;        // 0 queries, 1 keys, 2 values
  uint head_words;  // head_dim / 2
  uint n_heads;     // of x that are taken
  uint first_head;
  uint x_stride;
  uint rope_dims;
  uint halves;  // 1: dimension i is paired with i + rope_dims / 2, 0: even ones with the next
  float scale;  // of queries
};

float rotated(uint head, uint row, uint d) {
  if (d >= rope_dims || what == 2) return x[head + d];
  const uint half_dims = rope_dims / 2;
  const uint pair = halves == 1 ? d % half_dims : d / 2;
  const float c = rope[row * rope_dims + pair], s = rope[row * rope_dims + half_dims + pair];
  const uint first = halves == 1 ? pair : 2 * pair, second = halves == 1 ? pair + half_dims : 2 * pair + 1;
  const float a = x[head + first], b = x[head + second];
  return d == first ? a * c - b * s : a * s + b * c;
}

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
