// A model ready to run: its files' maps, its configuration, tokenizer and weights.
#pragma once

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
};

class Model {
 public:
  // `path` is a GGUF file, or the first of a split model. Throws Error naming the file and the key
  // or tensor at fault.
  Model(const std::string& path, const ModelParams& params);

  const GgufSet& files() const { return files_; }
  const GgufFile& file() const { return files_.first(); }
  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool vocab_only() const { return !backend_; }
  uint64_t n_params() const;
  uint64_t n_bytes() const;  // of all tensors, as stored

  // The rest is absent with vocab_only.
  Backend& backend() const { return *backend_; }
  const Weight& embedding() const { return *embedding_; }  // [n_vocab][dim]
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const Weight& output_norm() const { return *output_norm_; }  // [dim]
  const Weight& output() const { return *output_; }            // [n_vocab][dim]

 private:
  void load_weights();

  GgufSet files_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Weight> embedding_, output_norm_, output_;
  std::vector<LayerWeights> layers_;
};

}  // namespace pyllamacpp
