#include "session/generation.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace pyllamacpp {

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
  // The last token is always evaluated: its logits are wanted.
  const std::vector<int32_t>& held = context_.tokens(sequence_);
  const size_t most = std::min(held.size(), pending_.size() - 1);
  n_reused_ = int32_t(
      std::mismatch(held.begin(), held.begin() + std::ptrdiff_t(most), pending_.begin()).first -
      held.begin());
  context_.trim(sequence_, n_reused_);
  pending_.erase(pending_.begin(), pending_.begin() + n_reused_);
}

GenerationStep Generation::finish(FinishReason reason, std::string text, int32_t token) {
  finished_ = true;
  return {std::move(text), token, reason};
}

// What is still held back of the text, which now ends.
std::string Generation::tail() {
  std::string text = stops_.push(utf8_.flush());
  return text + stops_.flush();
}

GenerationStep Generation::next() {
  if (finished_) fail(ErrorKind::invalid_argument, "the generation has already finished");
  if (params_.max_tokens == 0) return finish(FinishReason::length, "", -1);
  const BatchPiece piece{sequence_, pending_, WantLogits::last};
  context_.decode({&piece, 1});
  pending_.clear();
  const Tokenizer& tokenizer = context_.model().tokenizer();
  // Neither an end nor a stop string counts while the text is too short.
  const bool may_end = n_generated_ >= params_.min_tokens;
  const std::span<const int32_t> barred =
      may_end ? std::span<const int32_t>() : tokenizer.end_tokens();
  const int32_t token = sampler_.sample(context_.logits(0), context_.tokens(sequence_), barred);
  ++n_generated_;
  if (!params_.ignore_eos && tokenizer.ends_generation(token))
    return finish(FinishReason::stop, tail(), token);
  std::string text = utf8_.push(tokenizer.piece(token, false));
  if (may_end) text = stops_.push(text);
  if (stops_.hit()) return finish(FinishReason::stop, std::move(text), token);
  pending_.push_back(token);
  if (n_generated_ == params_.max_tokens || context_.length(sequence_) == context_.params().n_ctx) {
    text += tail();
    return finish(stops_.hit() ? FinishReason::stop : FinishReason::length, std::move(text), token);
  }
  return {std::move(text), token, FinishReason::none};
}

}  // namespace pyllamacpp
