// Rotates keys, and stores keys or values in the cache in blocks of 32 dimensions, see kv.glsl. A
// workgroup takes two blocks of a head of a row, an invocation a dimension.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "kv.glsl"
#include "rotate.glsl"

layout(constant_id = 0) const uint kType = 8;
layout(local_size_x = 64) in;

shared float peaks[64];
shared uint codes[64];

void main() {
  const uint t = gl_LocalInvocationID.x, row = gl_WorkGroupID.y;
  const uint n_pairs = (head_words + 31) / 32;
  const uint h = gl_WorkGroupID.x / n_pairs, pair = gl_WorkGroupID.x % n_pairs;
  const uint d = 64 * pair + t, head = row * x_stride + (first_head + h) * head_words * 2;
  const bool exists = d < 2 * head_words;
  const float value = exists ? rotated(head, row, d) : 0;
  peaks[t] = value;
  for (uint n = 16; n > 0; n /= 2) {
    barrier();
    if (t % 32 < n && abs(peaks[t + n]) > abs(peaks[t])) peaks[t] = peaks[t + n];
  }
  barrier();
  // The quantizers of the CPU's cache: the value of largest magnitude becomes 127, or -8. Below
  // 1e-36 the inverse would not be finite; such blocks count as zero.
  const float first = peaks[0], second = peaks[32], own = t < 32 ? first : second;
  const bool counts = abs(own) > 1e-36;
  if (kType == Q8_0) {
    const float inverse = counts ? 127 / abs(own) : 0;
    codes[t] = uint(int(roundEven(value * inverse))) & 255;
  } else {
    const float inverse = counts ? -8 / own : 0;
    codes[t] = uint(clamp(int(floor(value * inverse + 8.5)), 0, 15));
  }
  barrier();
  const uint per_word = codes_per_word(kType), words = token_words(kType, head_words);
  const uint page = (slots[row] / 32 * n_heads + h) * 32 * words, offset = slots[row] % 32;
  if (t % per_word == 0 && exists) {
    uint w = 0;
    for (uint i = 0; i < per_word; ++i) w |= codes[t + i] << (32 / per_word * i);
    const uint j = d / per_word;
    kv[page + (what == 1 ? j * 32 + offset : offset * words + j)] = w;
  }
  if (t == 0) {
    const vec2 scales = kType == Q8_0 ? abs(vec2(first, second)) / 127 : vec2(first, second) / -8;
    const uint j = 2 * head_words / per_word + pair;
    kv[page + (what == 1 ? j * 32 + offset : offset * words + j)] =
        packHalf2x16(clamp(scales, -65504.0, 65504.0));
  }
}
