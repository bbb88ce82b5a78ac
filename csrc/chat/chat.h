// The loop of the chat: questions and commands in, answers out, the last conversation kept.
#pragma once

#include <string>
#include <vector>

#include "chat/conversation.h"
#include "chat/options.h"
#include "chat/screen.h"
#include "chat/speed.h"
#include "chat/store.h"

namespace pyllamacpp {

// What commands act on.
struct Chat {
  Conversation& conversation;
  Screen& screen;
  Options options;                         // the model is the one in use
  bool wants_stats = false;                // after each answer
  std::vector<std::string> attached = {};  // texts that go before the next question
  Speed speed = {};
  bool leaves = false;
  bool keeps_last = true;

  // Until the user leaves. Returns the exit status; throws Error only where nobody types.
  int run();
  // Shows the answer. False after Ctrl-C, what was said so far being kept.
  bool ask(const std::string& question, bool instead);
  // Goes on with a saved conversation, and shows how it ended.
  void resume(const std::string& name);
  SavedConversation as_saved() const;
  // Name of the model's file.
  std::string model_name() const;
  // Goes on with another model, once it is loaded. Throws Error, also for Ctrl-C while it loads,
  // and all is then as it was.
  void use_model(const std::string& file);

 private:
  void keep_last();
};

}  // namespace pyllamacpp
