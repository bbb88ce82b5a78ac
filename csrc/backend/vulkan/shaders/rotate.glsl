// The arguments of rope_store.comp and store_blocks.comp, and the rotation of queries and keys (Su et
// al. 2021).

layout(set = 0, binding = 0) readonly buffer X { float x[]; };         // [rows][x_stride]
layout(set = 0, binding = 1) readonly buffer Rope { float rope[]; };   // [rows][rope_dims]: cos, sin
layout(set = 0, binding = 2) readonly buffer Slots { uint slots[]; };  // [rows]: page * 32 + offset
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

// Dimension d of the head that begins at x[head].
float rotated(uint head, uint row, uint d) {
  if (d >= rope_dims || what == 2) return x[head + d];
  const uint half_dims = rope_dims / 2;
  const uint pair = halves == 1 ? d % half_dims : d / 2;
  const float c = rope[row * rope_dims + pair], s = rope[row * rope_dims + half_dims + pair];
  const uint first = halves == 1 ? pair : 2 * pair, second = halves == 1 ? pair + half_dims : 2 * pair + 1;
  const float a = x[head + first], b = x[head + second];
  return d == first ? a * c - b * s : a * s + b * c;
}
