#include "sample/sampling_params.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace pyllamacpp {

namespace {

struct StepName {
  const char* name;
  SamplerStep step;
};

// The first of a step is its name; the others are what users of llama.cpp also write.
constexpr StepName kSteps[] = {
    {"penalties", SamplerStep::penalties},
    {"dry", SamplerStep::dry},
    {"top_n_sigma", SamplerStep::top_n_sigma},
    {"top_k", SamplerStep::top_k},
    {"tfs_z", SamplerStep::tfs_z},
    {"typ_p", SamplerStep::typ_p},
    {"top_p", SamplerStep::top_p},
    {"min_p", SamplerStep::min_p},
    {"xtc", SamplerStep::xtc},
    {"temperature", SamplerStep::temperature},
    {"tfs", SamplerStep::tfs_z},
    {"typical_p", SamplerStep::typ_p},
    {"typical", SamplerStep::typ_p},
    {"typ", SamplerStep::typ_p},
    {"nucleus", SamplerStep::top_p},
    {"temp", SamplerStep::temperature},
};

}  // namespace

void check(const SamplingParams& params) {
  constexpr float kMost = std::numeric_limits<float>::max();
  struct Range {
    const char* name;
    float value, least, most;
    const char* expected;
  };
  const char* const finite = "a finite number";
  const char* const not_negative = "a finite number >= 0";
  const char* const share = "a number from 0 to 1";
  for (const Range& r : {
           Range{"temperature", params.temperature, -kMost, kMost, finite},
           Range{"top_p", params.top_p, -kMost, kMost, finite},
           Range{"min_p", params.min_p, -kMost, kMost, finite},
           Range{"tfs_z", params.tfs_z, -kMost, kMost, finite},
           Range{"typical_p", params.typical_p, -kMost, kMost, finite},
           Range{"frequency_penalty", params.frequency_penalty, -kMost, kMost, finite},
           Range{"presence_penalty", params.presence_penalty, -kMost, kMost, finite},
           Range{"repeat_penalty", params.repeat_penalty, std::numeric_limits<float>::min(), kMost,
                 "a positive number"},
           Range{"dynatemp_range", params.dynatemp_range, 0, kMost, not_negative},
           Range{"dynatemp_exponent", params.dynatemp_exponent, 0, kMost, not_negative},
           Range{"mirostat_tau", params.mirostat_tau, 0, kMost, not_negative},
           Range{"mirostat_eta", params.mirostat_eta, 0, kMost, not_negative},
           Range{"adaptive_target", params.adaptive_target, -kMost, 1, "a number of at most 1"},
           Range{"adaptive_decay", params.adaptive_decay, 0, 0.99f, "a number from 0 to 0.99"},
           Range{"dry_multiplier", params.dry_multiplier, 0, kMost, not_negative},
           Range{"dry_base", params.dry_base, 1, kMost, "a finite number >= 1"},
           Range{"xtc_probability", params.xtc_probability, 0, 1, share},
           Range{"xtc_threshold", params.xtc_threshold, 0, 1, share},
           Range{"top_n_sigma", params.top_n_sigma, -kMost, kMost, finite},
       })
    if (!(r.value >= r.least && r.value <= r.most))
      fail(ErrorKind::invalid_argument, r.name, " is ", r.value, ", expected ", r.expected);
  if (params.mirostat_mode < 0 || params.mirostat_mode > 2)
    fail(ErrorKind::invalid_argument, "mirostat_mode is ", params.mirostat_mode,
         ", expected 0 (off), 1 or 2");
  if (params.dry_allowed_length < 0)
    fail(ErrorKind::invalid_argument, "dry_allowed_length is ", params.dry_allowed_length,
         ", expected a number >= 0");
  for (const std::string& breaker : params.dry_sequence_breakers)
    if (breaker.empty())
      fail(ErrorKind::invalid_argument, "a string of dry_sequence_breakers is empty");
  // Mirostat chooses how many tokens stay. The cuts that are on by default are known to give way
  // to it; these are on only where someone wanted them.
  const char* const other = params.xtc_probability > 0    ? "xtc_probability"
                            : params.top_n_sigma > 0      ? "top_n_sigma"
                            : params.adaptive_target >= 0 ? "adaptive_target"
                                                          : nullptr;
  if (params.mirostat_mode != 0 && other)
    fail(ErrorKind::invalid_argument, "mirostat_mode is ", params.mirostat_mode,
         ", which takes the place of ", other, "; expected only one of them");
  // An infinite bias is a way to force or to forbid a token.
  for (const auto& [token, bias] : params.logit_bias)
    if (std::isnan(bias))
      fail(ErrorKind::invalid_argument, "the logit_bias of token ", token, " is NaN");
}

SamplerStep sampler_step(const std::string& name) {
  std::string known = name;
  std::replace(known.begin(), known.end(), '-', '_');
  for (const StepName& entry : kSteps)
    if (known == entry.name) return entry.step;
  std::string names;
  for (const StepName& entry : kSteps)
    if (name_of(entry.step) == entry.name)
      names.append(names.empty() ? "" : ", ").append(entry.name);
  fail(ErrorKind::invalid_argument, "samplers has '", name, "', expected names out of ", names);
}

const char* name_of(SamplerStep step) {
  return std::find_if(std::begin(kSteps), std::end(kSteps),
                      [&](const StepName& entry) { return entry.step == step; })
      ->name;
}

}  // namespace pyllamacpp
