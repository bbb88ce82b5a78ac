// LoRA (Hu et al. 2021, arXiv:2106.09685): low-rank changes of a model's matrices, applied while it
// runs. An adapter fits one model, and holds its changes as float32.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/model.h"

namespace pyllamacpp {

// The change scale * b a of the matrix named `matrix`, as "blk.0.attn_q.weight".
struct AdapterPair {
  std::string matrix;
  WeightSource a;  // [rank][in]
  WeightSource b;  // [out][rank]
  float scale;
};

class Adapter {
 public:
  // A GGUF file with general.type "adapter" and adapter.type "lora": tensors NAME.lora_a and
  // NAME.lora_b, each pair scaled by adapter.lora.alpha / rank; rows of queries and keys in the
  // order the model's file has them. Throws Error naming the file and the key or tensor at fault.
  Adapter(std::shared_ptr<const Model> model, const std::string& path);
  // Pairs from elsewhere; their data is copied. `name` stands for the path in messages.
  Adapter(std::shared_ptr<const Model> model, std::string name, std::span<const AdapterPair> pairs);

  const Model& model() const { return *model_; }
  const std::string& name() const { return name_; }
  const std::vector<LayerAdapter>& layers() const { return layers_; }  // [n_layers]
  int64_t most_rank() const { return most_rank_; }
  size_t n_bytes() const { return n_bytes_; }  // of memory

 private:
  void check_architecture(const GgufFile& file) const;
  void require_cpu() const;
  void add(const AdapterPair& pair);
  std::vector<float> take(const std::string& tensor, const WeightSource& source);

  std::shared_ptr<const Model> model_;
  std::string name_;
  std::vector<LayerAdapter> layers_;
  int64_t most_rank_ = 0;
  size_t n_bytes_ = 0;
};

// An adapter as a sequence uses it; scale 1 is the change as it was trained.
struct AdapterUse {
  std::shared_ptr<const Adapter> adapter;
  float scale;
  bool operator==(const AdapterUse&) const = default;
};

}  // namespace pyllamacpp
