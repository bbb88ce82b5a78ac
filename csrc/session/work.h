// What a model's tokens cost: what speeds are held against a machine's limits by.
//
// A prompt's limit is its arithmetic: matrix products, two operations per weight and token, the
// output matrix for the last token alone; and attention, in float32, four operations per value of a
// head and key that a token sees. All else comes on top. A generated token's limit is what must be
// read: every matrix once, the norms, one row of the embedding, and the keys and values of the
// tokens before it.
#pragma once

#include <cstdint>

#include "model/model.h"

namespace pyllamacpp {

// Per token: operations of matrix products by kind of weight, bytes read.
struct Work {
  double int8_ops = 0, float_ops = 0;
  double head_int8_ops = 0, head_float_ops = 0;  // of them, the output matrix's
  double weight_bytes = 0;
  double kv_bytes = 0, attention_ops = 0;  // per key that the token sees
  int32_t window = 0;                      // keys that it sees at most; 0: all

  struct Ops {
    double int8, float32;
  };
  // Per token of a prompt of n after `depth` others.
  Ops prompt_ops(int32_t n, int32_t depth) const;
  // Per token of n that are generated after `depth` others.
  double token_bytes(int32_t n, int32_t depth) const;
};

// Keys and values being of these types.
Work work_of(const Model& model, DType type_k, DType type_v);

}  // namespace pyllamacpp
