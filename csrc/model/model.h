// A model ready to run: its files' maps, its configuration, tokenizer and weights.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu_backend.h"
#include "gguf/gguf_set.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace pyllamacpp {

struct ModelParams {
  bool vocab_only = false;  // metadata and tokenizer, no weights
  Repack repack = Repack::automatic;
  int32_t n_threads = 0;  // threads that pack; 0: default_thread_count()
  // How many of the layers run on the GPU, counted from the end, where the head (the output matrix)
  // is one; negative: all.
  int32_t n_gpu_layers = 0;
  // How many of these, from the first on, leave their feed-forward part to the CPU.
  int32_t n_cpu_ffn = 0;
  size_t main_gpu = 0;           // see chosen_gpu()
  MetaOverrides overrides = {};  // of the file's metadata
  // Told the share of the weights that is loaded, 0 to 1; false ends loading with Error(cancelled).
  std::function<bool(double)> progress = nullptr;
};

// The feed-forward part of one layer alone, to be measured. It refers to the files. Throws Error as
// loading the model would.
LayerWeights load_feed_forward(const GgufSet& files, const ModelConfig& config, int32_t layer,
                               Backend& backend);

class Model {
 public:
  // `path` is a GGUF file, or the first of a split model. Throws Error naming the file and the key
  // or tensor at fault.
  Model(const std::string& path, const ModelParams& params);

  const GgufSet& files() const { return files_; }
  const GgufFile& file() const { return files_.first(); }
  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool vocab_only() const { return !cpu_; }
  Repack repack() const { return repack_; }
  uint64_t n_params() const;
  uint64_t n_bytes() const;  // of all tensors, as stored

  // The rest is absent with vocab_only.
  int32_t n_cpu_layers() const { return n_cpu_layers_; }
  int32_t n_cpu_ffn() const { return n_cpu_ffn_; }
  // Of layer i's attention, keys and values, or of the head for i = n_layers.
  Backend& backend(int32_t i) const { return i < n_cpu_layers_ ? *cpu_ : *gpu_; }
  // Of layer i's feed-forward part.
  Backend& ffn_backend(int32_t i) const { return backend(i - n_cpu_ffn_); }
  const Backend* gpu() const { return gpu_.get(); }        // null: all of it runs on the CPU
  const Weight& embedding() const { return *embedding_; }  // [n_vocab][dim]
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const Weight& output_norm() const { return *output_norm_; }  // [dim]
  const Weight& output() const { return *output_; }            // [n_vocab][dim]

 private:
  void load_weights(const std::function<bool(double)>& progress);

  GgufSet files_;
  Repack repack_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Backend> cpu_, gpu_;  // gpu_ where layers run there
  int32_t n_cpu_layers_ = 0;            // the first ones; n_layers + 1: with the head
  int32_t n_cpu_ffn_ = 0;               // of the layers that follow
  std::unique_ptr<Weight> embedding_, output_norm_, output_;
  std::vector<LayerWeights> layers_;
};

}  // namespace pyllamacpp
