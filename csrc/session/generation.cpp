#include "session/generation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

namespace {

// Rows of logits that a prompt with prompt_log_probs asks for at a time: they are vocabularies
// wide.
constexpr int32_t kMostLogitRows = 64;

LogProbs log_probs(std::span<const float> logits, int32_t chosen, int32_t n_top) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (float logit : logits) total += std::exp(double(logit) - double(best));
  const double log_total = double(best) + std::log(total);
  const auto of = [&](int32_t token) { return float(double(logits[size_t(token)]) - log_total); };
  LogProbs result = {of(chosen), {}};
  std::vector<int32_t> tokens(logits.size());
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = int32_t(i);
  const auto end = tokens.begin() + std::ptrdiff_t(std::min(tokens.size(), size_t(n_top)));
  std::partial_sort(tokens.begin(), end, tokens.end(), [&](int32_t a, int32_t b) {
    const float x = logits[size_t(a)], y = logits[size_t(b)];
    return x > y || (x == y && a < b);
  });
  for (auto token = tokens.begin(); token != end; ++token)
    result.top.emplace_back(*token, of(*token));
  return result;
}

// Whether no other token than those of `ends`, which ascend, is allowed.
bool is_only_ends(std::span<const uint32_t> allowed, std::span<const int32_t> ends) {
  size_t n_others = 0;
  for (uint32_t word : allowed) n_others += size_t(std::popcount(word));
  for (size_t i = 0; i < ends.size(); ++i) {
    const size_t end = size_t(ends[i]);
    const bool is_new = i == 0 || ends[i] != ends[i - 1];
    n_others -= is_new && allowed[end / 32] >> (end % 32) & 1;
  }
  return n_others == 0;
}

}  // namespace

Generation::Generation(Context& context, int32_t sequence, std::vector<int32_t> prompt,
                       GenerationParams params)
    : context_(context),
      sequence_(sequence),
      params_(std::move(params)),
      sampler_(params_.sampling, [&tokenizer = context.model().tokenizer()](
                                     int32_t token) { return tokenizer.piece(token, true); }),
      stops_(params_.stop),
      pending_(std::move(prompt)),
      n_prompt_tokens_(int32_t(pending_.size())) {
  if (pending_.empty()) fail(ErrorKind::invalid_argument, "the prompt has no tokens");
  const int32_t n_ctx = context_.params().n_ctx;
  if (n_prompt_tokens_ > n_ctx)
    fail(ErrorKind::context_full, "Requested tokens (", n_prompt_tokens_,
         ") exceed context window of ", n_ctx);
  if (params_.n_keep < 0 || params_.n_keep >= n_ctx)
    fail(ErrorKind::invalid_argument, "n_keep is ", params_.n_keep, ", expected 0 to ", n_ctx - 1);
  // The last token is always evaluated: its logits are wanted, as all are for log-probabilities.
  reuse(params_.prompt_log_probs ? 0 : pending_.size() - 1);
  n_reused_ = n_prompt_tokens_ - int32_t(pending_.size());
}

GenerationStep Generation::finish(FinishReason reason, std::string text, int32_t token) {
  finished_ = true;
  return {std::move(text), token, reason, {}};
}

// What is still held back of the text, which now ends.
std::string Generation::tail() {
  std::string text = stops_.push(utf8_.flush());
  return text + stops_.flush();
}

GenerationStep Generation::next() {
  if (finished_) fail(ErrorKind::invalid_argument, "the generation has already finished");
  if (params_.max_tokens == 0) return finish(FinishReason::length, "", -1);
  Generation* const alone = this;
  do evaluate({&alone, 1});
  while (!ready());
  return std::move(sample().front());
}

// Pending tokens and guesses that fit into so many rows.
std::pair<size_t, size_t> Generation::n_rows(int32_t most) const {
  if (params_.prompt_log_probs && n_generated_ == 0) most = std::min(most, kMostLogitRows);
  const size_t n = std::min(pending_.size(), size_t(std::max(most, 0)));
  if (n != 1 || pending_.size() != 1) return {n, 0};
  const size_t room = std::min(
      size_t(most - 1), size_t(context_.params().n_ctx) - 1 - size_t(context_.length(sequence_)));
  return {n, std::min(guesses_.size(), room)};
}

BatchPiece Generation::take(int32_t most) {
  const auto [n, n_guesses] = n_rows(most);
  const bool whole = n == pending_.size();
  guesses_.resize(n_guesses);
  rows_.assign(pending_.begin(), pending_.begin() + std::ptrdiff_t(n));
  rows_.insert(rows_.end(), guesses_.begin(), guesses_.end());
  const bool all = !guesses_.empty() || (params_.prompt_log_probs && n_generated_ == 0);
  return {sequence_, rows_, all ? WantLogits::all : whole ? WantLogits::last : WantLogits::none};
}

void Generation::evaluated(const BatchPiece& piece, int32_t first_output) {
  const size_t n_pending = piece.tokens.size() - guesses_.size();
  pending_.erase(pending_.begin(), pending_.begin() + std::ptrdiff_t(n_pending));
  const bool of_prompt = params_.prompt_log_probs && n_generated_ == 0;
  if (of_prompt) {
    const std::vector<int32_t>& held = context_.tokens(sequence_);
    for (size_t i = 0; i < n_pending; ++i) {
      // The token after row i is in the cache, still pending, or the first one to be sampled.
      const size_t place = held.size() - n_pending + i + 1;
      const int32_t following = place < held.size() ? held[place]
                                : pending_.empty()  ? -1
                                                    : pending_[0];
      if (following >= 0)
        prompt_log_probs_.push_back(
            log_probs(context_.logits(first_output + int32_t(i)), following, params_.n_log_probs));
    }
  }
  if (!pending_.empty()) return;
  first_output_ = first_output + (of_prompt ? int32_t(n_pending) - 1 : 0);
  n_outputs_ = 1 + int32_t(guesses_.size());
}

// The rows of one batch: `take`, of a generation and of how many are left, gives how many it takes.
template <class Take>
void Generation::share_batch(std::span<Generation* const> generations, const Take& take) {
  int32_t left = generations.empty() ? 0 : generations.front()->context_.params().n_batch;
  for (const bool texts : {true, false})
    for (Generation* g : generations)
      if (left > 0 && (g->pending_.size() == 1) == texts) left -= int32_t(take(*g, left));
}

int32_t Generation::pages_to_evaluate(std::span<Generation* const> generations) {
  int32_t n_pages = 0;
  share_batch(generations, [&](const Generation& g, int32_t left) {
    const auto [n, n_guesses] = g.n_rows(left);
    n_pages += g.context_.pages_to_append(g.sequence_, int32_t(n + n_guesses));
    return n + n_guesses;
  });
  return n_pages;
}

void Generation::evaluate(std::span<Generation* const> generations) {
  std::vector<BatchPiece> pieces;
  std::vector<Generation*> taken;
  for (Generation* g : generations) g->n_outputs_ = 0;
  share_batch(generations, [&](Generation& g, int32_t left) {
    pieces.push_back(g.take(left));
    taken.push_back(&g);
    return pieces.back().tokens.size();
  });
  generations.front()->context_.decode(pieces);
  int32_t output = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    taken[i]->evaluated(pieces[i], output);
    output += pieces[i].logits == WantLogits::all    ? int32_t(pieces[i].tokens.size())
              : pieces[i].logits == WantLogits::last ? 1
                                                     : 0;
  }
}

std::span<const float> Generation::logits() const {
  if (!ready()) fail(ErrorKind::invalid_argument, "the generation has no logits to sample from");
  return context_.logits(first_output_);
}

void Generation::guess(std::vector<int32_t> tokens) { guesses_ = std::move(tokens); }

std::vector<GenerationStep> Generation::sample(std::span<const float> changed,
                                               std::span<const uint32_t> allowed) {
  const std::span<const float> first = changed.empty() ? logits() : changed;
  if (first.size() != logits().size())
    fail(ErrorKind::invalid_argument, "the logits are ", first.size(), " values, expected ",
         logits().size());
  const int32_t n_outputs = n_outputs_;
  // Guesses lie in the cache behind the text; each is part of it once it was sampled.
  const int32_t n_text = context_.length(sequence_) - (n_outputs - 1);
  std::vector<GenerationStep> steps;
  int32_t right = 0;
  for (;; ++right) {
    const std::span<const float> row = right == 0 ? first : context_.logits(first_output_ + right);
    steps.push_back(step(row, allowed, size_t(n_text + right)));
    n_outputs_ = 0;
    const int32_t token = steps.back().token;
    if (params_.n_log_probs >= 0)
      steps.back().log_probs =
          log_probs(context_.logits(first_output_ + right), token, params_.n_log_probs);
    if (finished_ || right == n_outputs - 1 || token != guesses_[size_t(right)]) break;
  }
  context_.trim(sequence_, n_text + right);
  guesses_.clear();
  if (finished_) return steps;
  pending_.assign(1, steps.back().token);
  if (context_.length(sequence_) == context_.params().n_ctx) shift();
  return steps;
}

// Logits with those of tokens that are not allowed at minus infinity.
std::span<const float> Generation::mask(std::span<const float> logits,
                                        std::span<const uint32_t> allowed) {
  if (allowed.empty()) return logits;
  if (allowed.size() != (logits.size() + 31) / 32)
    fail(ErrorKind::invalid_argument, "the mask of allowed tokens has ", allowed.size(),
         " words, expected ", (logits.size() + 31) / 32);
  masked_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    masked_[i] = allowed[i / 32] >> (i % 32) & 1 ? logits[i] : -INFINITY;
  return masked_;
}

GenerationStep Generation::step(std::span<const float> logits, std::span<const uint32_t> allowed,
                                size_t n_history) {
  const Tokenizer& tokenizer = context_.model().tokenizer();
  // Neither an end nor a stop string counts while the text is too short.
  const bool may_end = n_generated_ >= params_.min_tokens;
  std::span<const int32_t> barred = may_end ? std::span<const int32_t>() : tokenizer.end_tokens();
  if (!allowed.empty() && is_only_ends(allowed, barred)) barred = {};
  const std::span<const int32_t> history = std::span(context_.tokens(sequence_)).first(n_history);
  const int32_t token = sampler_.sample(mask(logits, allowed), history, barred);
  ++n_generated_;
  if (!params_.ignore_eos && tokenizer.ends_generation(token))
    return finish(FinishReason::stop, tail(), token);
  const bool shown = std::ranges::find(params_.shown, token) != params_.shown.end();
  std::string text = utf8_.push(tokenizer.piece(token, shown));
  if (may_end) text = stops_.push(text);
  if (stops_.hit()) return finish(FinishReason::stop, std::move(text), token);
  const bool full = n_history == size_t(context_.params().n_ctx);
  if (n_generated_ == params_.max_tokens || (full && params_.when_full == WhenFull::stop)) {
    text += tail();
    return finish(stops_.hit() ? FinishReason::stop : FinishReason::length, std::move(text), token);
  }
  return {std::move(text), token, FinishReason::none, {}};
}

// Everything after the part that stays is evaluated again at its new place: the text goes on as it
// would from a prompt of these tokens.
void Generation::shift() {
  const std::vector<int32_t>& held = context_.tokens(sequence_);
  const size_t n_keep = size_t(params_.n_keep);
  const size_t n_dropped = (held.size() - n_keep + 1) / 2;
  std::vector<int32_t> rest(held.begin() + std::ptrdiff_t(n_keep + n_dropped), held.end());
  pending_.insert(pending_.begin(), rest.begin(), rest.end());
  context_.trim(sequence_, params_.n_keep);
  ++n_shifts_;
}

std::string Generation::end() {
  finished_ = true;
  return tail();
}

void Generation::interrupt() {
  const std::vector<int32_t> held = context_.tokens(sequence_);
  context_.trim(sequence_, 0);
  pending_.insert(pending_.begin(), held.begin(), held.end());
  guesses_.clear();
  if (n_generated_ == 0) prompt_log_probs_.clear();
  n_outputs_ = 0;
}

void Generation::resume(int32_t sequence) {
  sequence_ = sequence;
  reuse(pending_.size() - 1);
}

// Leaves in the sequence what it has in common with the first `most` pending tokens.
void Generation::reuse(size_t most) {
  const std::vector<int32_t>& held = context_.tokens(sequence_);
  const auto end = held.begin() + std::ptrdiff_t(std::min(held.size(), most));
  const auto n = std::mismatch(held.begin(), end, pending_.begin()).first - held.begin();
  context_.trim(sequence_, int32_t(n));
  pending_.erase(pending_.begin(), pending_.begin() + n);
}

}  // namespace pyllamacpp
