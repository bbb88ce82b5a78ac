#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "text/utf8.h"

namespace pyllamacpp {

namespace {

// Bounds no real model comes near; they keep products of these numbers inside 64 bits.
constexpr uint64_t kMost = 1 << 20;

class Keys {
 public:
  Keys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string name(const char* key) const { return prefix_ + "." + key; }

  int32_t positive(const char* key, uint64_t most = kMost) const {
    return checked(key, file_.get_uint(name(key)), most);
  }
  int32_t positive_or(const char* key, int32_t otherwise, uint64_t most = kMost) const {
    const auto value = file_.find_uint(name(key));
    return value ? checked(key, *value, most) : otherwise;
  }
  double real_or(const char* key, double otherwise) const {
    const double value = file_.find_float(name(key)).value_or(otherwise);
    if (!std::isfinite(value) || value < 0)
      fail(ErrorKind::format, file_.name(), ": ", name(key), " is ", value,
           ", expected a finite number that is not negative");
    return value;
  }

  // Files without a window leave the key out or write 0.
  int32_t window() const {
    const uint64_t value = file_.find_uint(name("attention.sliding_window")).value_or(0);
    return value == 0 ? 0 : checked("attention.sliding_window", value, 1 << 30);
  }

 private:
  int32_t checked(const char* key, uint64_t value, uint64_t most) const {
    if (value == 0 || value > most)
      fail(ErrorKind::format, file_.name(), ": ", name(key), " is ", value, ", expected 1 to ",
           most);
    return int32_t(value);
  }

  const GgufFile& file_;
  std::string prefix_;
};

// Architectures with LLaMA's block. They differ in how RoPE pairs a head's dimensions; biases and
// norms of queries and keys show in the tensors.
constexpr struct {
  const char* name;
  RopeLayout layout;
} kArchitectures[] = {
    {"llama", RopeLayout::interleaved},
    {"qwen2", RopeLayout::halves},
    {"qwen3", RopeLayout::halves},
};

RopeLayout rope_layout(const GgufFile& file, const std::string& architecture) {
  std::string names;
  for (const auto& a : kArchitectures) {
    if (architecture == a.name) return a.layout;
    names += (names.empty() ? "" : ", ") + std::string(a.name);
  }
  fail(ErrorKind::unsupported, file.name(), ": architecture '", printable(architecture),
       "' is not supported; supported: ", names);
}

}  // namespace

ModelConfig read_config(const GgufSet& files) {
  const GgufFile& file = files.first();
  ModelConfig c;
  c.architecture = std::string(file.get_string("general.architecture"));
  c.rope_layout = rope_layout(file, c.architecture);
  const Keys keys(file, c.architecture);
  if (keys.positive_or("expert_count", 1) > 1)
    fail(ErrorKind::unsupported, file.name(), ": mixtures of experts are not supported yet");
  if (const std::string key = keys.name("attention.causal"); !file.find_bool(key).value_or(true))
    fail(ErrorKind::unsupported, file.name(), ": ", key,
         " is false: tokens that attend to later ones are not supported");
  c.n_layers = keys.positive("block_count", 1 << 12);
  c.n_ctx_train = keys.positive("context_length", 1 << 30);
  c.dim = keys.positive("embedding_length");
  c.n_ff = keys.positive("feed_forward_length");
  c.n_heads = keys.positive("attention.head_count", 1 << 14);
  c.n_kv_heads = keys.positive_or("attention.head_count_kv", c.n_heads, 1 << 14);
  if (c.n_heads % c.n_kv_heads != 0)
    fail(ErrorKind::format, file.name(), ": ", c.n_heads, " heads cannot share ", c.n_kv_heads,
         " key and value heads evenly");
  if (!file.find(keys.name("attention.key_length")) && c.dim % c.n_heads != 0)
    fail(ErrorKind::format, file.name(), ": embedding length ", c.dim, " is not a multiple of the ",
         c.n_heads, " heads");
  c.head_dim = keys.positive_or("attention.key_length", c.dim / c.n_heads, 1 << 12);
  if (const int32_t v = keys.positive_or("attention.value_length", c.head_dim); v != c.head_dim)
    fail(ErrorKind::unsupported, file.name(), ": heads with keys of ", c.head_dim,
         " and values of ", v, " are not supported");
  c.norm_eps = float(keys.real_or("attention.layer_norm_rms_epsilon", 1e-5));
  c.rope.theta = keys.real_or("rope.freq_base", 10000);
  if (!(c.rope.theta > 1))
    fail(ErrorKind::format, file.name(), ": ", keys.name("rope.freq_base"), " is ", c.rope.theta,
         ", expected more than 1");
  c.rope.dims = keys.positive_or("rope.dimension_count", c.head_dim);
  if (c.rope.dims > c.head_dim || c.rope.dims % 2 != 0)
    fail(ErrorKind::format, file.name(), ": ", keys.name("rope.dimension_count"), " is ",
         c.rope.dims, ", expected an even number of at most ", c.head_dim);
  c.rope.scaling = read_rope_scaling(files, c.architecture + ".", c.rope.dims, c.n_ctx_train);
  c.window = keys.window();
  return c;
}

}  // namespace pyllamacpp
