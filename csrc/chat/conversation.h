// A conversation with a model: what was said, what the model sees of it, and the next answer.
#pragma once

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "chat/answer.h"
#include "chat/chat_format.h"
#include "chat/store.h"
#include "session/context.h"

namespace pyllamacpp {

// What happens to an answer that would outgrow the context: it ends, what is oldest is dropped, or
// nothing of it is kept.
enum class FullContext { stop, shift, error };
inline constexpr std::string_view kFullContextNames[] = {"stop", "shift", "error"};
// Throws Error(invalid_argument) for another name than these; `setting` is what has that value.
FullContext full_context_of(std::string_view setting, std::string_view name);

class Conversation {
 public:
  Conversation(std::unique_ptr<Context> context, ChatFormat format, GenerationParams params,
               std::optional<std::string> system);

  std::optional<std::string> system;  // without: the format's own
  std::string name;                   // under which it was saved or loaded; may be empty
  GenerationParams params;            // the seed is that of the first answer
  FullContext when_full = FullContext::stop;

  const std::vector<Exchange>& exchanges() const { return exchanges_; }
  // Of these, so many of the oldest are not seen by the model any more.
  size_t n_unseen() const { return n_unseen_; }
  const std::optional<Answer>& last() const { return last_; }  // of the model in use
  const Context& context() const { return *context_; }
  const ChatFormat& format() const { return format_; }
  int32_t n_ctx() const { return context_->params().n_ctx; }

  // Becomes another one.
  void set(std::optional<std::string> new_system, std::vector<Exchange> exchanges,
           std::string new_name);
  // Goes on with another model; what was said stays.
  void use(std::unique_ptr<Context> context, ChatFormat format);
  // The seed of the next answer; those after it follow from it.
  void reseed(uint64_t seed);
  // Throws Error(invalid_argument) when nothing was asked yet.
  const std::string& last_question() const;
  void undo();
  // Tokens of what the model sees of the conversation so far.
  int32_t n_tokens() const;

  // Answers and keeps both; what Ctrl-C leaves of an answer is kept, too. `instead`: in place of
  // the last question. Nothing when Ctrl-C came before the first word: the conversation is then as
  // it was, as after an error. Throws Error(context_full) when the question does not fit or, with
  // FullContext::error, the answer does not.
  std::optional<Answer> ask(const std::string& question, bool instead, Screen& screen);

 private:
  Answer answer(const std::string& question, size_t n_before, Screen& screen);
  std::string said(size_t first, size_t last) const;
  std::vector<int32_t> prompt(size_t first, size_t last, std::string_view question) const;
  std::vector<int32_t> fitting(size_t n_before, const std::string& question, Screen& screen);
  std::string marked_system() const;
  int32_t n_keep() const;

  std::unique_ptr<Context> context_;
  ChatFormat format_;
  std::vector<Exchange> exchanges_;
  size_t n_unseen_ = 0;
  std::optional<Answer> last_;
  std::mt19937_64 seeds_;
  uint64_t seed_ = 0;
};

}  // namespace pyllamacpp
