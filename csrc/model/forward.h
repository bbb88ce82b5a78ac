// The forward pass of the LLaMA block (Touvron et al. 2023, arXiv:2302.13971).
#pragma once

#include "cache/batch.h"
#include "cache/kv_cache.h"
#include "model/model.h"

namespace pyllamacpp {

// Asked before every layer; true stops with Error(cancelled).
using Cancelled = bool (*)(void* context);

// Computes the batch, whose rows already have their pages in the cache. `logits` gets
// [batch outputs][n_vocab] floats.
void forward(const Model& model, Stream& stream, KvCache& cache, const BatchView& batch,
             float* logits, Cancelled cancelled, void* context);

}  // namespace pyllamacpp
