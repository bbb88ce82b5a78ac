#include "chat/conversation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "chat/screen.h"
#include "text/utf8.h"

namespace pyllamacpp {

namespace {

// Not in any text that is UTF-8.
constexpr std::string_view kMark = "\xFF\xFE\xFF";

}  // namespace

FullContext full_context_of(std::string_view setting, std::string_view name) {
  for (size_t i = 0; i < std::size(kFullContextNames); ++i)
    if (kFullContextNames[i] == name) return FullContext(i);
  fail(ErrorKind::invalid_argument, setting, " must be stop or shift or error, found '",
       printable(name), "'");
}

Conversation::Conversation(std::unique_ptr<Context> context, ChatFormat format,
                           GenerationParams params, std::optional<std::string> system)
    : system(std::move(system)),
      params(std::move(params)),
      context_(std::move(context)),
      format_(std::move(format)),
      seeds_(this->params.sampling.seed),
      seed_(this->params.sampling.seed) {}

void Conversation::set(std::optional<std::string> new_system, std::vector<Exchange> exchanges,
                       std::string new_name) {
  system = std::move(new_system);
  exchanges_ = std::move(exchanges);
  name = std::move(new_name);
  n_unseen_ = 0;
  last_.reset();
}

void Conversation::use(std::unique_ptr<Context> context, ChatFormat format) {
  context_ = std::move(context);
  format_ = std::move(format);
  n_unseen_ = 0;
  last_.reset();
}

void Conversation::reseed(uint64_t seed) {
  seeds_.seed(seed);
  seed_ = seed;
}

const std::string& Conversation::last_question() const {
  if (exchanges_.empty()) fail(ErrorKind::invalid_argument, "nothing was asked yet");
  return exchanges_.back().question;
}

void Conversation::undo() {
  exchanges_.pop_back();
  n_unseen_ = std::min(n_unseen_, exchanges_.size());
}

int32_t Conversation::n_tokens() const {
  if (exchanges_.empty()) return 0;
  const std::string text = said(n_unseen_, exchanges_.size());
  return int32_t(context_->model().tokenizer().encode(text, true, true, kMark).size());
}

std::optional<Answer> Conversation::ask(const std::string& question, bool instead, Screen& screen) {
  const size_t n_before = exchanges_.size() - (instead ? 1 : 0);
  const size_t old_unseen = n_unseen_;
  n_unseen_ = std::min(n_unseen_, n_before);
  Answer a;
  try {
    a = answer(question, n_before, screen);
  } catch (...) {
    n_unseen_ = old_unseen;
    throw;
  }
  seed_ = seeds_();
  if (a.end == Answer::End::interrupted && a.text.empty()) {
    n_unseen_ = old_unseen;
    return std::nullopt;
  }
  exchanges_.resize(n_before);
  exchanges_.push_back({question, a.text});
  last_ = a;
  return a;
}

Answer Conversation::answer(const std::string& question, size_t n_before, Screen& screen) {
  const size_t old_unseen = n_unseen_;
  std::vector<int32_t> tokens = fitting(n_before, question, screen);
  GenerationParams next = params;
  next.stop = format_.stop();
  next.sampling.seed = seed_;
  if (when_full == FullContext::shift) {
    next.when_full = WhenFull::shift;
    next.n_keep = n_keep();
  }
  Answer a = make_answer(*context_, std::move(tokens), next, screen);
  a.n_dropped = int32_t(2 * (n_unseen_ - old_unseen));
  if (when_full == FullContext::error && a.end == Answer::End::context_full)
    fail(ErrorKind::context_full, "the text has filled the context of ", n_ctx(),
         " tokens: nothing of the answer is kept");
  return a;
}

// Special tokens that a message or an answer spells are text.
std::string Conversation::marked_system() const {
  return context_->model().tokenizer().marked(system.value_or(format_.default_system()), kMark);
}

std::string Conversation::said(size_t first, size_t last) const {
  const Tokenizer& tokenizer = context_->model().tokenizer();
  const std::string before = marked_system();
  std::string text = format_.opening(before);
  for (size_t i = first; i < last; ++i)
    text += format_.turn(tokenizer.marked(exchanges_[i].question, kMark), before, i == first) +
            format_.answer(tokenizer.marked(exchanges_[i].answer, kMark));
  return text;
}

std::vector<int32_t> Conversation::prompt(size_t first, size_t last,
                                          std::string_view question) const {
  const Tokenizer& tokenizer = context_->model().tokenizer();
  const std::string turn =
      format_.turn(tokenizer.marked(question, kMark), marked_system(), first == last);
  return tokenizer.encode(said(first, last) + turn, true, true, kMark);
}

// The prompt, without the oldest that must go to make it fit.
std::vector<int32_t> Conversation::fitting(size_t n_before, const std::string& question,
                                           Screen& screen) {
  std::vector<int32_t> tokens = prompt(n_unseen_, n_before, question);
  const size_t n_most = size_t(n_ctx()), n_all = tokens.size(), old_unseen = n_unseen_;
  if (when_full == FullContext::shift) {
    // Room for an answer, where old messages can make it.
    const size_t wanted = params.max_tokens < 0 ? n_most : size_t(params.max_tokens);
    // Down to half, so that the next questions find their beginning in the cache.
    if (tokens.size() + std::min(wanted, n_most / 4) >= n_most)
      while (tokens.size() > n_most / 2 && n_unseen_ < n_before)
        tokens = prompt(++n_unseen_, n_before, question);
  }
  if (tokens.size() >= n_most)
    fail(ErrorKind::context_full, "the question does not fit any more: the conversation has ",
         tokens.size(), " tokens, the context ", n_most,
         "; /clear starts anew, /undo takes back, -c makes room");
  if (n_unseen_ > old_unseen)
    screen.notice("the context of " + std::to_string(n_most) + " tokens is full: the oldest " +
                  std::to_string(2 * (n_unseen_ - old_unseen)) + " messages (" +
                  std::to_string(n_all - tokens.size()) +
                  " tokens) were dropped from what the model sees");
  return tokens;
}

// Tokens of the system message: those in which two prompts of nothing else agree.
int32_t Conversation::n_keep() const {
  const std::vector<int32_t> one = prompt(0, 0, "1"), other = prompt(0, 0, "2");
  const auto same = std::mismatch(one.begin(), one.end(), other.begin(), other.end());
  return std::min(int32_t(same.first - one.begin()), n_ctx() / 2);
}

}  // namespace pyllamacpp
