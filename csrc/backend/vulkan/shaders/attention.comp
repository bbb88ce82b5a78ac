// attended = softmax(q k^T) v over the paged cache, causal: a workgroup takes one head of one row.
// Chunks of 128 keys update an online softmax (Milakov and Gimelshein 2018) in ascending order, so
// that a row's result does not depend on what else is in the batch.
// Cache: keys [page][head][word][32 keys], values [page][head][32 keys][word]; kv.glsl has the words.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "kv.glsl"

layout(constant_id = 0) const uint kKeyType = F16;
layout(constant_id = 1) const uint kValueType = F16;

const uint kThreads = 128;  // keys of a chunk
layout(local_size_x = 128) in;
layout(set = 0, binding = 0) readonly buffer Q { float q[]; };  // [rows][stride], scaled
layout(set = 0, binding = 1) readonly buffer K { uint keys[]; };
layout(set = 0, binding = 2) readonly buffer V { uint values[]; };
layout(set = 0, binding = 3) readonly buffer Pages { uint pages[]; };
layout(set = 0, binding = 4) readonly buffer Rows { uvec4 rows[]; };  // first page's place in
                                                                      // pages, first key, end of keys
layout(set = 0, binding = 5) writeonly buffer Out { float attended[]; };  // [rows][stride]
layout(push_constant) uniform Arguments {
  uint head_words;  // head_dim / 2, at most 128
  uint n_kv_heads;  // in this part of the cache
  uint group;       // query heads of a KV head
  uint first_head;  // of the queries
  uint stride;
};

shared float query[256];
shared float weight[kThreads];   // of the chunk's keys
shared float reduced[kThreads];
shared vec2 merged[kThreads];

// The query times the key whose words begin at `base`, 32 apart.
float score_of(uint base) {
  float score = 0;
  if (kKeyType == F16) {
    for (uint j = 0; j < head_words; ++j) {
      const vec2 k = unpackHalf2x16(keys[base + 32 * j]);
      score = fma(k.x, query[2 * j], score);
      score = fma(k.y, query[2 * j + 1], score);
    }
    return score;
  }
  const uint per_word = codes_per_word(kKeyType), scales = 2 * head_words / per_word;
  for (uint b = 0; b < head_words / 16; ++b) {
    float sum = 0;
    for (uint d = 32 * b; d < 32 * b + 32; d += per_word) {
      const uint w = keys[base + 32 * (d / per_word)];
      for (uint i = 0; i < per_word; ++i) sum = fma(code_at(kKeyType, w, i), query[d + i], sum);
    }
    score = fma(half_at(keys[base + 32 * (scales + b / 2)], b & 1), sum, score);
  }
  return score;
}

// Dimensions 2 j and 2 j + 1 of the value whose words begin at `base`.
vec2 value_at(uint base, uint j) {
  if (kValueType == F16) return unpackHalf2x16(values[base + j]);
  const uint per_word = codes_per_word(kValueType), scales = 2 * head_words / per_word, b = j / 16;
  const uint w = values[base + 2 * j / per_word], i = 2 * j % per_word;
  return half_at(values[base + scales + b / 2], b & 1) *
         vec2(code_at(kValueType, w, i), code_at(kValueType, w, i + 1));
}

float reduce_max(uint t, float v) {
  reduced[t] = v;
  for (uint n = kThreads / 2; n > 0; n /= 2) {
    barrier();
    if (t < n) reduced[t] = max(reduced[t], reduced[t + n]);
  }
  barrier();
  const float result = reduced[0];
  barrier();
  return result;
}

float reduce_sum(uint t, float v) {
  reduced[t] = v;
  for (uint n = kThreads / 2; n > 0; n /= 2) {
    barrier();
    if (t < n) reduced[t] += reduced[t + n];
  }
  barrier();
  const float result = reduced[0];
  barrier();
  return result;
}

void main() {
  const uint t = gl_LocalInvocationID.x, row = gl_WorkGroupID.y;
  const uint head = first_head + gl_WorkGroupID.x, kv_head = gl_WorkGroupID.x / group;
  const uint key_words = 32 * token_words(kKeyType, head_words);
  const uint value_words = token_words(kValueType, head_words);
  const uint at = row * stride + head * head_words * 2;
  for (uint d = t; d < 2 * head_words; d += kThreads) query[d] = q[at + d];
  barrier();
  const uint first_page = rows[row].x, first_key = rows[row].y, end = rows[row].z;
  // For the values a thread has two dimensions and every n_parts-th key of the chunk.
  const uint n_parts = kThreads / head_words, word = t % head_words, part = t / head_words;
  float largest = -3e38, total = 0;
  vec2 sum = vec2(0);
  for (uint chunk = first_key / kThreads * kThreads; chunk < end; chunk += kThreads) {
    const uint key = chunk + t;
    const bool seen = key >= first_key && key < end;
    float score = -3e38;
    if (seen)
      score = score_of((pages[first_page + key / 32] * n_kv_heads + kv_head) * key_words + key % 32);
    const float now = max(largest, reduce_max(t, score));
    const float shrink = exp(largest - now);
    largest = now;
    weight[t] = seen ? exp(score - now) : 0;
    total = fma(total, shrink, reduce_sum(t, weight[t]));
    sum *= shrink;
    if (part < n_parts)
      for (uint i = part; chunk + i < end && i < kThreads; i += n_parts) {
        const uint at_key = chunk + i;
        const uint slot = (pages[first_page + at_key / 32] * n_kv_heads + kv_head) * 32 + at_key % 32;
        sum = fma(value_at(slot * value_words, word), vec2(weight[i]), sum);
      }
    barrier();
  }
  merged[t] = sum;
  barrier();
  if (t < head_words) {
    for (uint p = 1; p < n_parts; ++p) sum += merged[p * head_words + t];
    attended[at + 2 * t] = sum.x / total;
    attended[at + 2 * t + 1] = sum.y / total;
  }
}
