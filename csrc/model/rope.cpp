#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <sstream>

#include "base/error.h"
#include "text/utf8.h"

namespace pyllamacpp {

namespace {

double positive(const GgufFile& file, const std::string& key, double otherwise) {
  const double value = file.find_float(key).value_or(otherwise);
  if (!std::isfinite(value) || value <= 0)
    fail(ErrorKind::format, file.name(), ": ", key, " is ", value, ", expected a positive number");
  return value;
}

std::vector<float> read_factors(const GgufSet& files, const char* name, int32_t dims) {
  const TensorInfo* t = files.find_tensor(name);
  if (!t) return {};
  const size_t n = size_t(dims) / 2;
  if (t->type != DType::f32 || t->n_elements() != n)
    fail(ErrorKind::format, files.name(), ": tensor '", name, "' has ", t->n_elements(),
         " values of type ", traits(t->type).name, ", expected ", n, " of f32");
  const float* values = reinterpret_cast<const float*>(t->data.data());
  for (size_t i = 0; i < n; ++i)
    if (!(values[i] > 0) || !std::isfinite(values[i]))
      fail(ErrorKind::format, files.name(), ": tensor '", name, "' holds ", values[i],
           ", expected positive numbers");
  return {values, values + n};
}

// The pair whose frequency turns `turns` times over the original context.
double pair_that_turns(const Rope& rope, double turns) {
  return rope.dims *
         std::log(double(rope.scaling.original_context) / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// YaRN (Peng et al. 2023, arXiv:2309.00071): fast pairs keep their frequency, slow ones are
// interpolated, those in between are blended linearly.
void apply_yarn(const Rope& rope, RopeTable& table) {
  const RopeScaling& s = rope.scaling;
  const double low = std::max(0.0, std::floor(pair_that_turns(rope, s.beta_fast)));
  const double high = std::min(rope.dims - 1.0, std::ceil(pair_that_turns(rope, s.beta_slow)));
  for (size_t i = 0; i < table.frequencies.size(); ++i) {
    const double ramp = std::clamp((double(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    const double kept = (1 - ramp) * s.extrapolation;
    table.frequencies[i] *= kept + (1 - kept) / s.factor;
  }
  table.scale = float(s.attention_factor * (1 + 0.1 * std::log(s.factor)));
}

// LongRoPE (Ding et al. 2024, arXiv:2402.13753), as Phi-3 uses it.
void apply_longrope(const RopeScaling& s, int64_t n_ctx, RopeTable& table) {
  const std::vector<float>& factors = n_ctx > s.original_context ? s.long_factors : s.short_factors;
  for (size_t i = 0; i < table.frequencies.size(); ++i)
    table.frequencies[i] /= double(factors[i]) * s.factor;
}

// Finite and at least `least`, or more than it.
double in_range(const char* name, double value, double least, bool or_equal) {
  if (!std::isfinite(value) || value < least || (value == least && !or_equal))
    fail(ErrorKind::invalid_argument, name, " is ", value, ", expected a finite number ",
         or_equal ? "of at least " : "of more than ", least);
  return value;
}

}  // namespace

RopeScaling read_rope_scaling(const GgufSet& files, const std::string& prefix, int32_t dims,
                              int64_t n_ctx_train) {
  const GgufFile& file = files.first();
  const auto key = [&](const char* name) { return prefix + "rope.scaling." + name; };
  RopeScaling s;
  s.original_context =
      int64_t(file.find_uint(key("original_context_length")).value_or(uint64_t(n_ctx_train)));
  if (s.original_context <= 0 || s.original_context > (int64_t(1) << 40))
    fail(ErrorKind::format, file.name(), ": ", key("original_context_length"), " is ",
         s.original_context, ", expected a number of tokens");
  s.attention_factor = positive(file, key("attn_factor"), 1);
  s.factors = read_factors(files, "rope_freqs.weight", dims);
  s.short_factors = read_factors(files, "rope_factors_short.weight", dims);
  s.long_factors = read_factors(files, "rope_factors_long.weight", dims);
  const std::string kind(
      file.find_string(key("type"))
          .value_or(file.find(prefix + "rope.scale_linear") ? "linear" : "none"));
  if (kind == "linear") {
    s.kind = RopeScaling::Kind::linear;
    // Old files have the other key, some with 0 for "none".
    const double old = file.find_float(prefix + "rope.scale_linear").value_or(1);
    s.factor = positive(file, key("factor"), old == 0 ? 1 : old);
  } else if (kind == "yarn") {
    s.kind = RopeScaling::Kind::yarn;
    s.factor = positive(file, key("factor"), 1);
    s.beta_fast = positive(file, key("yarn_beta_fast"), 32);
    s.beta_slow = positive(file, key("yarn_beta_slow"), 1);
  } else if (kind == "longrope" || !s.long_factors.empty()) {
    s.kind = RopeScaling::Kind::longrope;
    if (s.long_factors.empty() || s.short_factors.empty())
      fail(ErrorKind::format, file.name(),
           ": LongRoPE needs the tensors 'rope_factors_long.weight' and "
           "'rope_factors_short.weight'");
  } else if (kind != "none") {
    fail(ErrorKind::unsupported, file.name(), ": RoPE scaling '", printable(kind),
         "' is not supported; supported: none, linear, yarn, longrope, and the factors of LLaMA 3");
  }
  return s;
}

std::string RopeOverrides::description() const {
  std::ostringstream out;
  out.precision(17);
  const auto say = [&](const char* name, bool is_set, auto value) {
    if (is_set) out << (out.tellp() > 0 ? ", " : "") << name << ' ' << value;
  };
  say("kind", kind.has_value(), int(kind.value_or(RopeScaling::Kind::none)));
  say("base", theta != 0, theta);
  say("scale", frequency_scale != 0, frequency_scale);
  say("extrapolation", extrapolation >= 0, extrapolation);
  say("attention", attention_factor != 1, attention_factor);
  say("beta_fast", beta_fast.has_value(), beta_fast.value_or(0));
  say("beta_slow", beta_slow.has_value(), beta_slow.value_or(0));
  say("original context", original_context != 0, original_context);
  return out.str();
}

Rope with_overrides(Rope rope, const RopeOverrides& o) {
  using Kind = RopeScaling::Kind;
  RopeScaling& s = rope.scaling;
  if (o.theta != 0) rope.theta = in_range("rope_freq_base", o.theta, 1, false);
  if (o.kind) s.kind = *o.kind;
  if (s.kind == Kind::longrope && (s.long_factors.empty() || s.short_factors.empty()))
    fail(ErrorKind::invalid_argument,
         "rope_scaling_type is LongRoPE, but the file has no factors for it");
  const auto no_effect = [](const char* name, const char* with) {
    fail(ErrorKind::invalid_argument, name, " has no effect with ", with);
  };
  if (o.frequency_scale != 0) {
    s.factor = 1 / in_range("rope_freq_scale", o.frequency_scale, 0, false);
    if (s.kind == Kind::none && o.kind) no_effect("rope_freq_scale", "rope_scaling_type none");
    if (s.kind == Kind::none) s.kind = Kind::linear;
  }
  if (!std::isfinite(o.extrapolation))
    fail(ErrorKind::invalid_argument, "yarn_ext_factor is ", o.extrapolation,
         ", expected a finite number");
  if (o.extrapolation >= 0) {
    if (s.kind == Kind::longrope) no_effect("yarn_ext_factor", "LongRoPE");
    if (s.kind == Kind::none && o.extrapolation > 0)
      no_effect("yarn_ext_factor", "RoPE that is not scaled: give rope_freq_scale");
    if (s.kind != Kind::none) s.kind = o.extrapolation > 0 ? Kind::yarn : Kind::linear;
    s.extrapolation = o.extrapolation;
  }
  s.attention_factor *= in_range("yarn_attn_factor", o.attention_factor, 0, false);
  if (s.kind != Kind::yarn) {
    if (o.beta_fast) no_effect("yarn_beta_fast", "another scaling than YaRN");
    if (o.beta_slow) no_effect("yarn_beta_slow", "another scaling than YaRN");
  }
  if (o.beta_fast) s.beta_fast = in_range("yarn_beta_fast", *o.beta_fast, 0, false);
  if (o.beta_slow) s.beta_slow = in_range("yarn_beta_slow", *o.beta_slow, 0, false);
  if (o.original_context != 0) {
    if (s.kind != Kind::yarn && s.kind != Kind::longrope)
      no_effect("yarn_orig_ctx", "another scaling than YaRN and LongRoPE");
    s.original_context = int64_t(in_range("yarn_orig_ctx", double(o.original_context), 1, true));
  }
  return rope;
}

RopeTable rope_table(const Rope& rope, int64_t n_ctx) {
  const RopeScaling& s = rope.scaling;
  RopeTable table;
  table.scale = float(s.attention_factor);
  for (int32_t i = 0; i < rope.dims / 2; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * i / rope.dims);
    table.frequencies.push_back(s.factors.empty() ? frequency
                                                  : frequency / double(s.factors[size_t(i)]));
  }
  switch (s.kind) {
    case RopeScaling::Kind::none:
      break;
    case RopeScaling::Kind::linear:
      for (double& f : table.frequencies) f /= s.factor;
      break;
    case RopeScaling::Kind::yarn:
      apply_yarn(rope, table);
      break;
    case RopeScaling::Kind::longrope:
      apply_longrope(s, n_ctx, table);
      break;
  }
  return table;
}

}  // namespace pyllamacpp
