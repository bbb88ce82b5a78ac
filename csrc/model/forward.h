// The forward pass of the LLaMA block (Touvron et al. 2023, arXiv:2302.13971).
#pragma once

#include <vector>

#include "cache/batch.h"
#include "cache/kv_cache.h"
#include "model/model.h"

namespace pyllamacpp {

// Asked before every layer; true stops with Error(cancelled).
using Cancelled = bool (*)(void* context);

// The streams that run each layer's attention and feed-forward part in turn and, last, the head. A
// feed-forward part's may be another than the one of its weights' backend (StreamShape::borrows).
struct Steps {
  std::vector<Stream*> streams;  // [2 * n_layers + 1]
  std::vector<float> rows;       // what crosses from one stream to the next
};

// What a pass computes of each of the batch's output rows: logits [n_vocab], or the hidden state
// [dim], the residual after the last norm, that they are computed from.
enum class Result { logits, hidden };

// Computes the batch, whose rows already have their pages in the cache. `results` gets
// [batch outputs][n_vocab or dim] floats.
void forward(const Model& model, Steps& steps, KvCache& cache, const BatchView& batch,
             Result result, float* results, Cancelled cancelled, void* context);

}  // namespace pyllamacpp
