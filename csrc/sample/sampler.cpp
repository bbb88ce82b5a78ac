#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace pyllamacpp {

namespace {

// Numbers in [0, 1) that depend on seed, index and use alone: SplitMix64's output function (Steele,
// Lea, Flood 2014), so that a draw needs no state beyond its number.
enum class Use : uint64_t { token = 0, xtc = 0xd1b54a32d192ed03u };

double uniform(uint64_t seed, uint64_t index, Use use) {
  uint64_t z = (seed ^ uint64_t(use)) + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// exp(logit - best), also when both are infinite.
float weight(float logit, float best) { return logit == best ? 1 : std::exp(logit - best); }

}  // namespace

Sampler::Sampler(const SamplingParams& params, PieceOf piece)
    : params_((check(params), params)),
      repetitions_(params.dry_sequence_breakers, std::move(piece)),
      surprise_limit_(2 * double(params.mirostat_tau)),
      // As if the tokens before had been at the target.
      drawn_probability_(double(params.adaptive_target) / (1 - double(params.adaptive_decay))),
      n_drawn_(1 / (1 - double(params.adaptive_decay))) {}

bool Sampler::is_greedy() const {
  const auto& steps = params_.samplers;
  return params_.temperature <= 0 && params_.dynatemp_range == 0 &&
         std::find(steps.begin(), steps.end(), SamplerStep::temperature) != steps.end();
}

bool Sampler::is_adaptive() const { return params_.adaptive_target >= 0 && !is_greedy(); }

// weights_[i] = exp(logit_i - best) of the candidates; returns their sum.
double Sampler::weigh() {
  const float best = candidates_.best_logit();
  weights_.clear();
  double total = 0;
  candidates_.for_each([&](float logit) {
    weights_.push_back(weight(logit, best));
    total += double(weights_.back());
  });
  return total;
}

void Sampler::bias() {
  for (const auto& [token, bias] : params_.logit_bias) {
    if (token < 0 || size_t(token) >= n_vocab_)
      fail(ErrorKind::invalid_argument, "logit_bias names token ", token,
           ", which the vocabulary of ", n_vocab_, " does not have");
    // What is forbidden stays so.
    candidates_.update({&token, 1}, [bias = bias](float logit, size_t) {
      return bias == -INFINITY ? bias : logit + bias;
    });
  }
}

void Sampler::bar(std::span<const int32_t> tokens) {
  candidates_.update(tokens, [](float, size_t) { return -INFINITY; });
}

// The penalties of Keskar et al. 2019 (arXiv:1909.05858, repeat) and of OpenAI's API (frequency,
// presence).
void Sampler::penalize(std::span<const int32_t> history) {
  const SamplingParams& p = params_;
  const size_t n =
      p.penalty_last_n < 0 ? history.size() : std::min(history.size(), size_t(p.penalty_last_n));
  if (n == 0 || (p.repeat_penalty == 1 && p.frequency_penalty == 0 && p.presence_penalty == 0))
    return;
  tokens_.assign(history.end() - std::ptrdiff_t(n), history.end());
  std::sort(tokens_.begin(), tokens_.end());
  counts_.clear();
  size_t n_distinct = 0;
  for (size_t i = 0; i < n; ++n_distinct) {
    const size_t first = i;
    while (i < n && tokens_[i] == tokens_[first]) ++i;
    tokens_[n_distinct] = tokens_[first];
    counts_.push_back(int32_t(i - first));
  }
  tokens_.resize(n_distinct);
  candidates_.update(tokens_, [&](float logit, size_t i) {
    if (std::find(p.unpenalized.begin(), p.unpenalized.end(), tokens_[i]) != p.unpenalized.end())
      return logit;
    logit = logit > 0 ? logit / p.repeat_penalty : logit * p.repeat_penalty;
    return logit - (float(counts_[i]) * p.frequency_penalty + p.presence_penalty);
  });
}

void Sampler::penalize_repetitions(std::span<const int32_t> history) {
  const SamplingParams& p = params_;
  if (p.dry_multiplier == 0 || p.dry_penalty_last_n == 0) return;
  const size_t last_n = p.dry_penalty_last_n < 0 ? history.size() : size_t(p.dry_penalty_last_n);
  const auto found = repetitions_.find(history, last_n, p.dry_allowed_length);
  tokens_.clear();
  for (const RepetitionFinder::Repetition& r : found) tokens_.push_back(r.token);
  candidates_.update(tokens_, [&](float logit, size_t i) {
    const double penalty = double(p.dry_multiplier) *
                           std::pow(double(p.dry_base), found[i].length - p.dry_allowed_length);
    // However large, it does not forbid the token when there is no other.
    return logit - float(std::min(penalty, double(std::numeric_limits<float>::max())));
  });
}

// Top-n-sigma (Tang et al. 2024, arXiv:2411.07641): logits that are at most n standard deviations
// of all candidates' logits below the best.
void Sampler::keep_near_the_best() {
  if (params_.top_n_sigma <= 0) return;
  double n = 0, sum = 0, squares = 0;
  candidates_.for_each([&](float logit) {
    if (logit == INFINITY) return;
    ++n;
    sum += double(logit);
  });
  candidates_.for_each([&, mean = sum / n](float logit) {
    if (logit < INFINITY) squares += (double(logit) - mean) * (double(logit) - mean);
  });
  const double sigma = n > 0 ? std::sqrt(squares / n) : 0;
  const float best = candidates_.best_logit();
  candidates_.keep_from(std::min(best, float(double(best) - double(params_.top_n_sigma) * sigma)));
}

// Tail free sampling (Bricken 2019, trentonbricken.com/Tail-Free-Sampling): of the probabilities,
// best first, those from where the absolute second differences have come to more than a share of
// tfs_z of their sum are the tail. Where all are alike there is none.
void Sampler::drop_tail() {
  if (params_.tfs_z >= 1) return;
  const size_t n = candidates_.list().size();
  if (n < 3) return;
  candidates_.keep_best(n);
  weigh();
  const auto bend = [&](size_t i) {
    return std::abs(double(weights_[i]) - 2 * double(weights_[i + 1]) + double(weights_[i + 2]));
  };
  double total = 0, sum = 0;
  for (size_t i = 0; i + 2 < n; ++i) total += bend(i);
  size_t kept = 0;
  while (kept + 2 < n && (sum += bend(kept)) <= double(params_.tfs_z) * total) ++kept;
  if (kept + 2 < n) candidates_.keep_best(std::max(kept, size_t(1)));
}

// Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): keeps the candidates whose
// surprise is nearest to the expected one, up to a share of typical_p.
void Sampler::keep_typical() {
  if (params_.typical_p >= 1) return;
  candidates_.list();
  const double total = weigh();
  const auto surprise = [&](size_t i) { return -std::log(double(weights_[i]) / total); };
  double entropy = 0;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (weights_[i] > 0) entropy += double(weights_[i]) / total * surprise(i);
  distances_.clear();
  for (size_t i = 0; i < weights_.size(); ++i)
    distances_.emplace_back(std::abs(surprise(i) - entropy), i);
  // A heap with the least distance in front gives up the few that stay.
  std::make_heap(distances_.begin(), distances_.end(), std::greater<>());
  auto end = distances_.end();
  double sum = 0;
  while (end != distances_.begin() &&
         (end == distances_.end() || sum < double(params_.typical_p) * total)) {
    std::pop_heap(distances_.begin(), end--, std::greater<>());
    sum += double(weights_[end->second]);
    weights_[end->second] = -1;  // taken
  }
  candidates_.keep_if([&](const auto&, size_t i) { return weights_[i] < 0; });
}

// Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751).
void Sampler::keep_nucleus() {
  if (params_.top_p >= 1) return;
  const double enough = double(params_.top_p) * weigh();
  const float best = candidates_.best_logit();
  double sum = 0;
  candidates_.keep_best_while([&](const auto& c) {
    if (sum >= enough) return false;
    sum += double(weight(c.logit, best));
    return true;
  });
}

// XTC, "exclude top choices" (p-e-w, text-generation-webui pull request 6335): where several
// tokens are likely, sometimes only the least likely of them stays, with all that are unlikely.
void Sampler::drop_likely() {
  const SamplingParams& p = params_;
  if (p.xtc_threshold > 0.5f || uniform(p.seed, n_sampled_, Use::xtc) >= double(p.xtc_probability))
    return;
  const double likely = double(p.xtc_threshold) * weigh();
  const float best = candidates_.best_logit();
  const auto is_likely = [&](const auto& c) { return double(weight(c.logit, best)) >= likely; };
  Candidates::Candidate last = {INFINITY, -1};
  for (const Candidates::Candidate& c : candidates_.list())
    if (is_likely(c) && (c.logit < last.logit || (c.logit == last.logit && c.token > last.token)))
      last = c;
  candidates_.keep_if(
      [&](const auto& c, size_t) { return !is_likely(c) || c.token == last.token; });
}

// Divides by the temperature, which may depend on the entropy (dynamic temperature: kalomaze,
// llama.cpp pull request 4972): from temperature - range where one token is certain up to
// temperature + range where all are alike.
void Sampler::scale() {
  double temperature = std::max(double(params_.temperature), 0.0);
  if (params_.dynatemp_range > 0) {
    const double total = weigh();
    if (weights_.size() < 2) return;
    double entropy = 0;
    for (float w : weights_)
      if (w > 0) entropy -= double(w) / total * std::log(double(w) / total);
    const double share = std::clamp(entropy / std::log(double(weights_.size())), 0.0, 1.0);
    const double least = std::max(temperature - double(params_.dynatemp_range), 0.0);
    const double most = temperature + double(params_.dynatemp_range);
    temperature = least + (most - least) * std::pow(share, double(params_.dynatemp_exponent));
  }
  if (temperature == 1) return;
  if (temperature <= 0) return candidates_.keep_best(1);
  // Absolute, as later steps may look at signs; relative where the best would overflow.
  const double best = double(candidates_.best_logit());
  const bool fits = std::abs(best / temperature) <= double(std::numeric_limits<float>::max());
  const double shift = fits || best == double(INFINITY) ? 0 : best;
  candidates_.update_all([&](float logit) { return float((double(logit) - shift) / temperature); });
}

// Mirostat (Basu et al. 2020, arXiv:2007.14966), as llama.cpp has it: as many of the best as Zipf's
// law, its exponent estimated from the 100 best, asks for to reach the wanted surprise.
void Sampler::keep_zipf_top() {
  constexpr size_t kEstimatedFrom = 100;
  double products = 0, squares = 0;
  float last = 0;
  const auto estimate = [&] {
    const double s = squares > 0 ? products / squares : 0;
    const double epsilon = s - 1, log_n = std::log(double(n_vocab_));
    // (1 - n^-epsilon) / epsilon, which is log n where epsilon is 0.
    const double divisor = epsilon == 0 ? log_n : -std::expm1(-epsilon * log_n) / epsilon;
    const double k = std::pow(std::exp2(surprise_limit_) / divisor, 1 / s);
    return k >= double(n_vocab_) ? n_vocab_ : k >= 1 ? size_t(k) : 1;
  };
  size_t n = 0, k = 0;
  candidates_.keep_best_while([&](const auto& c) {
    if (n == kEstimatedFrom) k = estimate();
    if (n >= kEstimatedFrom) return n++ < k;
    if (n > 0) {
      const double t = std::log(double(n + 1) / double(n));
      if (c.logit < last) products += t * (double(last) - double(c.logit));
      squares += t * t;
    }
    last = c.logit;
    ++n;
    return true;
  });
  if (n <= kEstimatedFrom) k = estimate();
  if (k < candidates_.list().size()) candidates_.keep_best(k);
}

// Mirostat 2: the tokens that surprise no more than the limit, or the best.
void Sampler::keep_unsurprising() {
  const double total = weigh();
  const float best = candidates_.best_logit();
  const double least = double(best) + std::log(total * std::exp2(-surprise_limit_));
  candidates_.keep_from(std::min(best, float(least)));
}

// Adaptive-p (MrJackSpade; llama.cpp pull request 17927, whose constants these are): a candidate
// weighs the more the nearer its probability is to what the average of those drawn needs to come
// back to the target. What cannot be drawn stays so.
double Sampler::aim(double total) {
  constexpr double kWidth = 0.3, kSharpness = 10;
  natural_total_ = total;
  const double average = drawn_probability_ / n_drawn_;
  const double wanted = std::clamp(2 * double(params_.adaptive_target) - average, 0.0, 1.0);
  double sum = 0;
  for (float& w : weights_) {
    const double distance = std::abs(double(w) / total - wanted) / kWidth;
    if (w > 0) w = float(std::exp(-kSharpness * distance * distance / (1 + distance)));
    sum += double(w);
  }
  return sum;
}

void Sampler::take(SamplerStep step, std::span<const int32_t> history) {
  const SamplingParams& p = params_;
  switch (step) {
    case SamplerStep::penalties:
      return penalize(history);
    case SamplerStep::dry:
      return penalize_repetitions(history);
    case SamplerStep::top_n_sigma:
      return keep_near_the_best();
    case SamplerStep::top_k:
      if (p.top_k > 0 && size_t(p.top_k) < n_vocab_) candidates_.keep_best(size_t(p.top_k));
      return;
    case SamplerStep::tfs_z:
      return drop_tail();
    case SamplerStep::typ_p:
      return keep_typical();
    case SamplerStep::top_p:
      return keep_nucleus();
    case SamplerStep::min_p:
      if (p.min_p > 0)
        candidates_.keep_from(candidates_.best_logit() + std::log(std::min(p.min_p, 1.0f)));
      return;
    case SamplerStep::xtc:
      return drop_likely();
    case SamplerStep::temperature:
      return scale();
  }
}

// Leaves what can be drawn in candidates_, their weights in weights_; returns the sum of these.
double Sampler::narrow(std::span<const float> logits, std::span<const int32_t> history,
                       std::span<const int32_t> barred) {
  // One pass that compilers vectorise: a comparison with NaN is false.
  size_t n_good = 0;
  for (float logit : logits) n_good += logit < INFINITY;
  if (n_good != logits.size()) {
    const auto bad =
        std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < INFINITY); });
    fail(ErrorKind::invalid_argument, "no token can be sampled: the logit of token ",
         bad - logits.begin(), " is ", std::isnan(*bad) ? "NaN" : "infinite");
  }
  n_vocab_ = logits.size();
  candidates_.reset(logits);
  bias();
  bar(barred);
  const bool greedy = is_greedy(), keeps_all = greedy || params_.mirostat_mode != 0;
  for (SamplerStep step : params_.samplers) {
    const bool drops = step != SamplerStep::penalties && step != SamplerStep::dry &&
                       step != SamplerStep::temperature;
    if (!(keeps_all && drops) && !(greedy && step == SamplerStep::temperature)) take(step, history);
  }
  if (greedy)
    candidates_.keep_best(1);
  else if (params_.mirostat_mode == 1)
    keep_zipf_top();
  else if (params_.mirostat_mode == 2)
    keep_unsurprising();
  if (candidates_.list().empty())
    fail(ErrorKind::invalid_argument, "no token can be sampled: of ", n_vocab_,
         " logits none is larger than minus infinity");
  const double total = weigh();
  return is_adaptive() ? aim(total) : total;
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                        std::span<const int32_t> barred) {
  const double total = narrow(logits, history, barred);
  const std::span<const Candidates::Candidate> list = candidates_.list();
  double left = uniform(params_.seed, n_sampled_++, Use::token) * total;
  size_t drawn = 0;
  for (size_t i = 0; i < list.size() && left >= 0; ++i) {
    left -= double(weights_[i]);
    if (weights_[i] > 0) drawn = i;
  }
  if (params_.mirostat_mode != 0)
    surprise_limit_ -= double(params_.mirostat_eta) *
                       (-std::log2(double(weights_[drawn]) / total) - double(params_.mirostat_tau));
  if (is_adaptive()) {
    const double decay = double(params_.adaptive_decay);
    const double natural = double(weight(list[drawn].logit, candidates_.best_logit()));
    drawn_probability_ = natural / natural_total_ + decay * drawn_probability_;
    n_drawn_ = 1 + decay * n_drawn_;
  }
  return list[drawn].token;
}

std::vector<double> Sampler::probabilities(std::span<const float> logits,
                                           std::span<const int32_t> history,
                                           std::span<const int32_t> barred) {
  const double total = narrow(logits, history, barred);
  std::vector<double> result(logits.size());
  size_t i = 0;
  for (const Candidates::Candidate& c : candidates_.list())
    result[size_t(c.token)] = double(weights_[i++]) / total;
  return result;
}

}  // namespace pyllamacpp
