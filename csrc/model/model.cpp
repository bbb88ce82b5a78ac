#include "model/model.h"

#include <algorithm>
#include <set>

#include "backend/vulkan/vulkan_backend.h"
#include "base/error.h"
#include "model/load_vocab.h"
#include "quant/dequantize.h"

namespace pyllamacpp {

namespace {

// Takes tensors by name, checks their shapes and gives them to the backend of their layer.
class Loader {
 public:
  explicit Loader(const GgufSet& files) : files_(files) {}

  // For what follows.
  void use(Backend& backend) { backend_ = &backend; }

  // For what follows: the tensors whose names begin so.
  void use(Backend& backend, const std::string& prefix) {
    use(backend);
    size_t n_bytes = 0;
    for (const TensorInfo& t : files_.tensors())
      if (t.name.starts_with(prefix))
        n_bytes += t.shape.size() == 1
                       ? backend.vector_bytes(int64_t(t.shape[0]))
                       : backend.matrix_bytes(t.type, int64_t(t.n_rows()), int64_t(t.shape[0]));
    backend.expect(n_bytes);
  }

  bool has(const std::string& name) const { return files_.find_tensor(name) != nullptr; }

  std::unique_ptr<Weight> matrix(const std::string& name, int64_t rows, int64_t cols) {
    const WeightSource source = take(name, rows, cols);
    if (!backend_->supports(source.type)) refuse(name, source.type);
    auto weight = backend_->load_matrix(source);
    if (!weight->uses_source()) files_.release(source.data);
    return weight;
  }

  std::unique_ptr<Weight> table(const std::string& name, int64_t rows, int64_t cols) {
    const WeightSource source = take(name, rows, cols);
    if (!can_dequantize(source.type)) refuse(name, source.type);
    return backend_->load_table(source);
  }

  std::unique_ptr<Weight> vector(const std::string& name, int64_t n) {
    const WeightSource source = take(name, 1, n);
    if (!can_dequantize(source.type)) refuse(name, source.type);
    return backend_->load_vector(source);
  }

  std::unique_ptr<Weight> optional_vector(const std::string& name, int64_t n) {
    return has(name) ? vector(name, n) : nullptr;
  }

  // Of layer layer.index.
  void feed_forward(const ModelConfig& c, Backend& backend, LayerWeights& layer) {
    const std::string prefix = "blk." + std::to_string(layer.index) + ".ffn_";
    use(backend, prefix);
    layer.ffn_norm = vector(prefix + "norm.weight", c.dim);
    layer.gate = matrix(prefix + "gate.weight", c.n_ff, c.dim);
    layer.up = matrix(prefix + "up.weight", c.n_ff, c.dim);
    layer.down = matrix(prefix + "down.weight", c.dim, c.n_ff);
  }

  // A tensor nobody asked for would change the result if it were ignored.
  void finish() {
    for (const TensorInfo& t : files_.tensors())
      if (!taken_.count(t.name) && !t.name.starts_with("rope_f"))  // read by read_rope_scaling
        fail(ErrorKind::unsupported, files_.name(), ": tensor '", t.name,
             "' is not part of a model this version can run");
  }

 private:
  WeightSource take(const std::string& name, int64_t rows, int64_t cols) {
    const TensorInfo* t = files_.find_tensor(name);
    if (!t) fail(ErrorKind::format, files_.name(), ": tensor '", name, "' is missing");
    if (t->shape[0] != uint64_t(cols) || t->n_rows() != uint64_t(rows))
      fail(ErrorKind::format, files_.name(), ": tensor '", name, "' has rows of ", t->shape[0],
           " values, ", t->n_rows(), " of them; expected ", cols, " values, ", rows, " rows");
    taken_.insert(t->name);
    return {t->type, rows, cols, t->data};
  }

  [[noreturn]] void refuse(const std::string& name, DType type) const {
    fail(ErrorKind::unsupported, files_.name(), ": tensor '", name, "' is of type ",
         traits(type).name, ", which this version cannot run");
  }

  const GgufSet& files_;
  Backend* backend_ = nullptr;
  std::set<std::string_view> taken_;
};

}  // namespace

LayerWeights load_feed_forward(const GgufSet& files, const ModelConfig& config, int32_t layer,
                               Backend& backend) {
  LayerWeights weights;
  weights.index = layer;
  Loader(files).feed_forward(config, backend, weights);
  backend.finish_loading();
  return weights;
}

Model::Model(const std::string& path, const ModelParams& params)
    : files_(GgufSet::open(path, params.overrides)), repack_(params.repack) {
  tokenizer_ = load_tokenizer(file());
  if (params.vocab_only && !file().find("general.architecture")) return;
  config_ = params.vocab_only ? ModelConfig{} : read_config(files_);
  config_.n_vocab = tokenizer_->size();
  if (params.vocab_only) return;
  const int32_t n_parts = config_.n_layers + 1;
  const int32_t n_gpu = params.n_gpu_layers < 0 ? n_parts : params.n_gpu_layers;
  n_cpu_layers_ = std::max(0, n_parts - n_gpu);
  n_cpu_ffn_ = std::clamp(params.n_cpu_ffn, 0, std::max(0, config_.n_layers - n_cpu_layers_));
  cpu_ = make_cpu_backend(params.repack, params.n_threads);
  if (n_gpu > 0) gpu_ = make_vulkan_backend(params.main_gpu);
  load_weights(params.progress);
}

void Model::load_weights(const std::function<bool(double)>& progress) {
  const ModelConfig& c = config_;
  const int64_t q_dim = int64_t(c.n_heads) * c.head_dim;
  const int64_t kv_dim = int64_t(c.n_kv_heads) * c.head_dim;
  Loader load(files_);
  load.use(backend(0));
  embedding_ = load.table("token_embd.weight", c.n_vocab, c.dim);
  const auto report = [&](int32_t n_parts_done) {
    if (progress && !progress(double(n_parts_done) / double(c.n_layers + 1)))
      fail(ErrorKind::cancelled, "loading ", files_.name(), " was cancelled");
  };
  for (int32_t i = 0; i < c.n_layers; ++i) {
    report(i);
    const std::string prefix = "blk." + std::to_string(i) + ".";
    load.use(backend(i), prefix + "attn_");
    LayerWeights layer;
    layer.index = i;
    layer.attention_norm = load.vector(prefix + "attn_norm.weight", c.dim);
    layer.q = load.matrix(prefix + "attn_q.weight", q_dim, c.dim);
    layer.k = load.matrix(prefix + "attn_k.weight", kv_dim, c.dim);
    layer.v = load.matrix(prefix + "attn_v.weight", kv_dim, c.dim);
    layer.q_bias = load.optional_vector(prefix + "attn_q.bias", q_dim);
    layer.k_bias = load.optional_vector(prefix + "attn_k.bias", kv_dim);
    layer.v_bias = load.optional_vector(prefix + "attn_v.bias", kv_dim);
    layer.q_norm = load.optional_vector(prefix + "attn_q_norm.weight", c.head_dim);
    layer.k_norm = load.optional_vector(prefix + "attn_k_norm.weight", c.head_dim);
    layer.attention_out = load.matrix(prefix + "attn_output.weight", c.dim, q_dim);
    load.feed_forward(c, ffn_backend(i), layer);
    layers_.push_back(std::move(layer));
  }
  report(c.n_layers);
  load.use(backend(c.n_layers), "output_norm.");
  output_norm_ = load.vector("output_norm.weight", c.dim);
  // Tied embeddings: the table serves as the output matrix.
  const char* output = load.has("output.weight") ? "output.weight" : "token_embd.weight";
  load.use(backend(c.n_layers), output);
  output_ = load.matrix(output, c.n_vocab, c.dim);
  load.finish();
  cpu_->finish_loading();
  if (gpu_) gpu_->finish_loading();
  files_.require_unchanged();
  report(c.n_layers + 1);
}

uint64_t Model::n_params() const {
  uint64_t n = 0;
  for (const TensorInfo& t : files_.tensors()) n += t.n_elements();
  return n;
}

uint64_t Model::n_bytes() const {
  uint64_t n = 0;
  for (const TensorInfo& t : files_.tensors()) n += t.data.size();
  return n;
}

}  // namespace pyllamacpp
