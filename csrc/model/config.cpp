#include "model/config.h"

#include <cmath>

#include "base/error.h"

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

// theta^(-2i/dims), divided by a linear factor and by the file's factors (LLaMA 3's scaling).
std::vector<double> rope_frequencies(const GgufFile& file, const Keys& keys, int32_t dims,
                                     double theta) {
  double factor = 1;
  const auto scaling = file.find_string(keys.name("rope.scaling.type"));
  if (scaling && *scaling != "none" && *scaling != "linear")
    fail(ErrorKind::unsupported, file.name(), ": RoPE scaling '", *scaling,
         "' is not supported yet; supported: none, linear, and factors in rope_freqs.weight");
  if (scaling && *scaling == "linear") factor = keys.real_or("rope.scaling.factor", 1);
  if (!scaling) factor = keys.real_or("rope.scale_linear", 1);
  if (factor == 0) factor = 1;  // written by old converters for "none"
  std::vector<double> frequencies(size_t(dims) / 2);
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(theta, -2.0 * double(i) / dims) / factor;
  if (const TensorInfo* t = file.find_tensor("rope_freqs.weight")) {
    if (t->type != DType::f32 || t->n_elements() != frequencies.size())
      fail(ErrorKind::format, file.name(), ": tensor 'rope_freqs.weight' has ", t->n_elements(),
           " values of type ", traits(t->type).name, ", expected ", frequencies.size(), " of f32");
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const float divisor = reinterpret_cast<const float*>(t->data.data())[i];
      if (!(divisor > 0) || !std::isfinite(divisor))
        fail(ErrorKind::format, file.name(), ": tensor 'rope_freqs.weight' holds ", divisor,
             ", expected positive numbers");
      frequencies[i] /= double(divisor);
    }
  }
  return frequencies;
}

}  // namespace

ModelConfig read_config(const GgufFile& file) {
  ModelConfig c;
  c.architecture = std::string(file.get_string("general.architecture"));
  if (c.architecture != "llama")
    fail(ErrorKind::unsupported, file.name(), ": architecture '", c.architecture,
         "' is not supported yet; supported: llama");
  if (file.find_uint("split.count").value_or(1) > 1)
    fail(ErrorKind::unsupported, file.name(),
         ": this is one part of a model split into several files, which is not supported yet");
  const Keys keys(file, c.architecture);
  if (keys.positive_or("expert_count", 1) > 1)
    fail(ErrorKind::unsupported, file.name(), ": mixtures of experts are not supported yet");
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
  c.rope_theta = float(keys.real_or("rope.freq_base", 10000));
  if (!(c.rope_theta >= 1))
    fail(ErrorKind::format, file.name(), ": ", keys.name("rope.freq_base"), " is ", c.rope_theta,
         ", expected at least 1");
  c.rope_dims = keys.positive_or("rope.dimension_count", c.head_dim);
  if (c.rope_dims > c.head_dim || c.rope_dims % 2 != 0)
    fail(ErrorKind::format, file.name(), ": ", keys.name("rope.dimension_count"), " is ",
         c.rope_dims, ", expected an even number of at most ", c.head_dim);
  c.rope_frequencies = rope_frequencies(file, keys, c.rope_dims, c.rope_theta);
  return c;
}

}  // namespace pyllamacpp
