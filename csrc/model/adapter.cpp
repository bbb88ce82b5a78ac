#include "model/adapter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "quant/dequantize.h"

namespace pyllamacpp {

namespace {

// A matrix that an adapter can change.
struct Target {
  int32_t layer;
  LowRank LayerAdapter::* matrix;
  int64_t rows, cols;
};

struct Kind {
  std::string_view name;
  LowRank LayerAdapter::* matrix;
  int64_t rows, cols;
};

bool find_target(const ModelConfig& c, std::string_view name, Target& target) {
  const int64_t q_dim = int64_t(c.n_heads) * c.head_dim;
  const int64_t kv_dim = int64_t(c.n_kv_heads) * c.head_dim;
  const Kind kinds[] = {{".attn_q.weight", &LayerAdapter::q, q_dim, c.dim},
                        {".attn_k.weight", &LayerAdapter::k, kv_dim, c.dim},
                        {".attn_v.weight", &LayerAdapter::v, kv_dim, c.dim},
                        {".attn_output.weight", &LayerAdapter::attention_out, c.dim, q_dim},
                        {".ffn_gate.weight", &LayerAdapter::gate, c.n_ff, c.dim},
                        {".ffn_up.weight", &LayerAdapter::up, c.n_ff, c.dim},
                        {".ffn_down.weight", &LayerAdapter::down, c.dim, c.n_ff}};
  if (!name.starts_with("blk.")) return false;
  name.remove_prefix(4);
  int32_t layer = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || layer < 0 || layer >= c.n_layers) return false;
  name.remove_prefix(size_t(end - name.data()));
  for (const Kind& kind : kinds)
    if (name == kind.name) {
      target = {layer, kind.matrix, kind.rows, kind.cols};
      return true;
    }
  return false;
}

WeightSource source_of(const TensorInfo& t) {
  return {t.type, int64_t(t.n_rows()), int64_t(t.shape[0]), t.data};
}

// The keys that say what the file is.
void expect_text(const GgufFile& file, std::string_view key, std::string_view expected) {
  const std::optional<std::string_view> found = file.find_string(key);
  if (!found)
    fail(ErrorKind::format, file.name(), ": ", key, " is missing; expected '", expected,
         "': it is no LoRA adapter");
  if (*found != expected)
    fail(ErrorKind::format, file.name(), ": ", key, " is not '", expected,
         "': it is no LoRA adapter");
}

}  // namespace

Adapter::Adapter(std::shared_ptr<const Model> model, const std::string& path)
    : model_(std::move(model)), name_(path) {
  require_cpu();
  layers_.resize(size_t(model_->config().n_layers));
  const GgufSet files = GgufSet::open(path);
  const GgufFile& file = files.first();
  expect_text(file, "general.type", "adapter");
  expect_text(file, "adapter.type", "lora");
  check_architecture(file);
  const double alpha = file.get_float("adapter.lora.alpha");
  if (!std::isfinite(alpha) || alpha == 0)
    fail(ErrorKind::format, name_, ": adapter.lora.alpha is ", alpha,
         ", expected a finite number other than 0");
  for (const TensorInfo& t : files.tensors()) {
    const bool is_a = t.name.ends_with(".lora_a");
    if (!is_a && !t.name.ends_with(".lora_b"))
      fail(ErrorKind::unsupported, name_, ": tensor '", t.name,
           "' is neither a .lora_a nor a .lora_b, which is all this version can apply");
    const std::string matrix(t.name.substr(0, t.name.size() - 7));
    const std::string other = matrix + (is_a ? ".lora_b" : ".lora_a");
    const TensorInfo* pair = files.find_tensor(other);
    if (!pair)
      fail(ErrorKind::format, name_, ": tensor '", other, "' is missing beside '", t.name, "'");
    if (!is_a) continue;
    const WeightSource a = source_of(t);
    add({matrix, a, source_of(*pair), float(alpha / double(a.rows))});
  }
  files.require_unchanged();
  if (most_rank_ == 0) fail(ErrorKind::format, name_, ": the adapter has no tensors");
}

Adapter::Adapter(std::shared_ptr<const Model> model, std::string name,
                 std::span<const AdapterPair> pairs)
    : model_(std::move(model)), name_(std::move(name)) {
  require_cpu();
  layers_.resize(size_t(model_->config().n_layers));
  for (const AdapterPair& pair : pairs) add(pair);
  if (most_rank_ == 0) fail(ErrorKind::format, name_, ": the adapter has no tensors");
}

void Adapter::require_cpu() const {
  if (model_->vocab_only())
    fail(ErrorKind::invalid_argument, model_->file().name(),
         " was loaded with vocab_only: it has no weights an adapter could change");
  if (model_->n_cpu_layers() < model_->config().n_layers)
    fail(ErrorKind::unsupported, name_,
         ": adapters are applied on the CPU only, and layers of this model run on the GPU");
}

void Adapter::check_architecture(const GgufFile& file) const {
  const std::optional<std::string_view> found = file.find_string("general.architecture");
  if (found && *found != model_->config().architecture)
    fail(ErrorKind::format, name_, ": general.architecture is not '", model_->config().architecture,
         "': it was made for another model");
}

std::vector<float> Adapter::take(const std::string& tensor, const WeightSource& source) {
  if (!can_dequantize(source.type))
    fail(ErrorKind::unsupported, name_, ": tensor '", tensor, "' is of type ",
         traits(source.type).name, ", which this version cannot read");
  std::vector<float> values(size_t(source.rows * source.cols));
  dequantize(source.type, source.data.data(), values.data(), int64_t(values.size()));
  if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }))
    fail(ErrorKind::format, name_, ": tensor '", tensor, "' has values that are not finite");
  n_bytes_ += values.size() * sizeof(float);
  return values;
}

void Adapter::add(const AdapterPair& pair) {
  const std::string a = pair.matrix + ".lora_a", b = pair.matrix + ".lora_b";
  Target target;
  if (!find_target(model_->config(), pair.matrix, target))
    fail(ErrorKind::unsupported, name_, ": tensor '", a,
         "' changes a matrix that is not one of "
         "the layers' attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up and ffn_down of this "
         "model");
  if (pair.a.rows < 1 || pair.a.cols != target.cols)
    fail(ErrorKind::format, name_, ": tensor '", a, "' has rows of ", pair.a.cols, " values, ",
         pair.a.rows, " of them; expected ", target.cols, " values, one or more rows");
  if (pair.b.rows != target.rows || pair.b.cols != pair.a.rows)
    fail(ErrorKind::format, name_, ": tensor '", b, "' has rows of ", pair.b.cols, " values, ",
         pair.b.rows, " of them; expected ", pair.a.rows, " values, ", target.rows, " rows");
  if (!std::isfinite(pair.scale))
    fail(ErrorKind::format, name_, ": the scale of '", pair.matrix, "' is ", pair.scale,
         ", expected a finite number");
  LowRank& change = layers_[size_t(target.layer)].*target.matrix;
  if (change.rank > 0)
    fail(ErrorKind::format, name_, ": the matrix '", pair.matrix, "' is changed twice");
  change = {pair.a.rows, pair.scale, take(a, pair.a), take(b, pair.b)};
  most_rank_ = std::max(most_rank_, change.rank);
}

}  // namespace pyllamacpp
