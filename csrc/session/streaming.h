// Whether prompts gain by having the feed-forward part of layers on the CPU computed by the GPU,
// with the weights packed and copied there for each batch: what the parts of it cost, measured.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu_backend.h"
#include "gguf/gguf_set.h"
#include "model/config.h"

namespace pyllamacpp {

struct StreamingRates {
  double upload_bytes_per_second = 0;  // of weights as they are in the file, packed and copied
  // Multiplies and adds of one layer's feed-forward part; on the GPU, rows going to and fro
  // included.
  double gpu_ops_per_second = 0, cpu_ops_per_second = 0;
};

// What one layer's feed-forward part takes.
struct FeedForwardWork {
  uint64_t weight_bytes = 0;  // in the file
  uint64_t row_ops = 0;       // multiplies and adds for each row
};

// The least rows of a batch for which the upload and the GPU together take less time than the CPU;
// 0: none up to most_rows.
int32_t least_streamed_rows(const StreamingRates& rates, const FeedForwardWork& work,
                            int32_t most_rows);

// Of the model's first layer. Throws Error as loading it would.
FeedForwardWork feed_forward_work(const GgufSet& files);

// Of the same layer on this machine and the GPU that `main_gpu` names; takes about a second and as
// much of the GPU's memory as a layer and a batch need.
StreamingRates measure_streaming(const GgufSet& files, const ModelConfig& config,
                                 const StreamShape& shape, Repack repack, size_t main_gpu);

}  // namespace pyllamacpp
