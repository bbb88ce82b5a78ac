#include "chat/chat.h"

#include <new>
#include <utility>

#include "base/error.h"
#include "chat/commands.h"
#include "chat/loading.h"

namespace pyllamacpp {

namespace {

constexpr int kInterrupted = 130;  // as shells have it

// Why an answer ends before the model wanted it to; empty if it does not.
std::string cut_sentence(const Answer& answer, int32_t n_ctx) {
  if (answer.end == Answer::End::max_tokens)
    return "the answer was cut at " + std::to_string(answer.n_tokens) + " tokens (-n)";
  if (answer.end == Answer::End::context_full)
    return "the context of " + std::to_string(n_ctx) +
           " tokens is full: the answer was cut (see -c, --when-full)";
  return "";
}

}  // namespace

int Chat::run() {
  bool is_second = false;  // a Ctrl-C at the prompt, one after another
  for (std::string line; !leaves;) {
    const Screen::Read read = screen.read(&line);
    if (read == Screen::Read::end) return 0;
    if (read == Screen::Read::interrupted) {
      if (!screen.is_typed()) return kInterrupted;
      if (is_second) return 0;
      is_second = true;
      screen.notice("Ctrl-C again leaves, as Ctrl-D does");
      continue;
    }
    is_second = false;
    try {
      if (line.starts_with('/'))
        run_command(*this, line);
      else if (!line.empty())
        ask(line, false);
    } catch (const Error& e) {
      if (!screen.is_typed() && e.kind() != ErrorKind::cancelled) throw;
      screen.notice(e.what());
    } catch (const std::bad_alloc&) {
      if (!screen.is_typed()) throw;
      screen.notice("not enough memory");
    }
    // A Ctrl-C that came too late is not for the next answer.
    if (was_interrupted() && !screen.is_typed()) return kInterrupted;
  }
  return 0;
}

bool Chat::ask(const std::string& question, bool instead) {
  std::string whole;
  if (!instead)
    for (const std::string& text : attached) whole += text + "\n\n";
  whole += question;
  std::optional<Answer> answer;
  try {
    answer = conversation.ask(whole, instead, screen);
  } catch (...) {
    screen.end_answer(nullptr);
    throw;
  }
  screen.end_answer(answer ? &*answer : nullptr);
  if (!answer) {
    screen.notice("stopped before the first word: the question is not kept");
    return false;
  }
  if (!instead) attached.clear();
  const bool stopped = answer->end == Answer::End::interrupted;
  if (stopped) screen.notice("stopped; what was said so far stays in the conversation");
  const std::string cut = cut_sentence(*answer, conversation.n_ctx());
  if (!cut.empty()) screen.notice(cut);
  if (wants_stats) screen.notice(speed.sentence(*answer, conversation.context()));
  keep_last();
  return !stopped;
}

void Chat::resume(const std::string& name) {
  const SavedConversation saved = store::load(name);
  // The one that is kept by itself has no name: it is not to be branched from unsaid.
  conversation.set(saved.system, saved.exchanges, name == store::kLast ? "" : name);
  screen.notice(name + ": " + std::to_string(saved.exchanges.size()) +
                " questions and answers, held with " + saved.model);
  if (saved.exchanges.empty()) return;
  screen.tell(saved.exchanges.back().question + "\n");
  screen.show(saved.exchanges.back().answer);
  screen.end_answer(nullptr);
}

SavedConversation Chat::as_saved() const {
  return {conversation.system, conversation.exchanges(), model_name()};
}

std::string Chat::model_name() const { return store::utf8(store::user_path(options.model).stem()); }

void Chat::use_model(const std::string& file) {
  Options changed = options;
  changed.model = store::utf8(store::user_path(file));
  std::unique_ptr<Context> context = load_model(changed);
  ChatFormat format = ChatFormat::choose(context->model(), options.format);
  conversation.use(std::move(context), std::move(format));
  options = std::move(changed);
}

void Chat::keep_last() {
  if (!keeps_last) return;
  try {
    store::save(store::kLast, as_saved());
  } catch (const Error& e) {
    keeps_last = false;
    screen.notice(std::string("the conversation is not kept: ") + e.what());
  }
}

}  // namespace pyllamacpp
