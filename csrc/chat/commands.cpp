#include "chat/commands.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "chat/settings.h"
#include "chat/store.h"
#include "text/utf8.h"

namespace pyllamacpp {

namespace {

using std::string;

struct Command {
  std::string_view name, argument, help;
  void (*run)(Chat&, const string& argument);
};

string trimmed(const string& text) {
  const size_t first = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  return text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

void show_help(Chat& chat, const string& argument);

void clear(Chat& chat, const string&) {
  chat.conversation.set(chat.conversation.system, {}, "");
  chat.attached.clear();
  chat.screen.notice("a new conversation");
}

void undo(Chat& chat, const string&) {
  const string question = printable(chat.conversation.last_question());
  chat.conversation.undo();
  chat.screen.notice("taken back with its answer: '" + question + "'");
}

void regenerate(Chat& chat, const string&) {
  chat.ask(string(chat.conversation.last_question()), true);
}

void edit(Chat& chat, const string& argument) {
  chat.conversation.last_question();
  if (argument.empty())
    fail(ErrorKind::invalid_argument, "write the question as it should have been: /edit TEXT");
  chat.ask(argument, true);
}

void system_message(Chat& chat, const string& argument) {
  std::optional<string>& system = chat.conversation.system;
  if (argument == "off")
    system.reset();
  else if (!argument.empty())
    system = argument;
  chat.screen.notice("system message: " + system.value_or("the model's own"));
}

void save(Chat& chat, const string& argument) {
  string& own = chat.conversation.name;
  const string& name = argument.empty() ? own : argument;
  if (name.empty())
    fail(ErrorKind::invalid_argument, "the conversation has no name yet: /save NAME");
  if (name == store::kLast)
    fail(ErrorKind::invalid_argument, name, " is where each chat is kept by itself; take a name");
  if (name != own && store::exists(name))
    fail(ErrorKind::invalid_argument, "there is a conversation ", name,
         " already; take another name");
  const string path = store::save(name, chat.as_saved());
  own = name;
  chat.screen.notice("saved as " + own + " (" + path + ")");
}

void load(Chat& chat, const string& argument) {
  if (!argument.empty()) return chat.resume(argument);
  string saved;
  for (const string& name : store::names()) saved += (saved.empty() ? "" : ", ") + name;
  chat.screen.notice("saved: " + (saved.empty() ? "none" : saved));
}

void export_to(Chat& chat, const string& argument) {
  if (argument.empty())
    fail(ErrorKind::invalid_argument, "name a file: /export FILE.md or FILE.json");
  store::export_to(argument, chat.as_saved());
  chat.screen.notice("written: " + argument);
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char read = next_char(text, at);
    if (read.status != Utf8Status::valid) return false;
    at += read.size;
  }
  return true;
}

size_t n_tokens(const Chat& chat, const string& text) {
  return chat.conversation.context().model().tokenizer().encode(text, false, false).size();
}

void read(Chat& chat, const string& argument) {
  if (argument.empty()) fail(ErrorKind::invalid_argument, "name a file: /read FILE");
  string text = store::read_file(store::user_path(argument), argument);
  if (!is_utf8(text)) fail(ErrorKind::io, argument, " is not text in UTF-8");
  const size_t n = n_tokens(chat, text);
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  const string name = argument.substr(argument.find_last_of('/') + 1);
  chat.attached.push_back(name + ":\n\n" + text);
  chat.screen.notice(name + ", " + std::to_string(n) + " tokens, goes before your next question");
}

void set(Chat& chat, const string& argument) {
  const size_t space = std::min(argument.find(' '), argument.size());
  const string typed = argument.substr(0, space);
  const string name = typed == "temp" ? "temperature" : typed;  // as the option is called
  if (space == argument.size()) return chat.screen.tell(shown_settings(chat, name));
  change_setting(chat, name, trimmed(argument.substr(space)));
  chat.screen.notice(shown_settings(chat, name));
}

void model(Chat& chat, const string& argument) {
  if (!argument.empty()) chat.use_model(argument);
  chat.screen.notice(chat.model_name() + ", context " + std::to_string(chat.conversation.n_ctx()) +
                     " tokens, " + chat.conversation.format().stated());
}

void stats(Chat& chat, const string&) {
  if (!chat.conversation.last())
    fail(ErrorKind::invalid_argument, "there is no answer to measure yet");
  chat.screen.notice(chat.speed.sentence(*chat.conversation.last(), chat.conversation.context()));
}

void tokens(Chat& chat, const string& argument) {
  const Conversation& conversation = chat.conversation;
  if (!argument.empty())
    return chat.screen.notice(std::to_string(n_tokens(chat, argument)) + " tokens");
  string text = std::to_string(conversation.n_tokens()) + " of " +
                std::to_string(conversation.n_ctx()) + " tokens";
  if (conversation.n_unseen() > 0)
    text += "; the oldest " + std::to_string(2 * conversation.n_unseen()) +
            " messages are not seen any more";
  chat.screen.notice(text);
}

void leave(Chat& chat, const string&) { chat.leaves = true; }

constexpr Command kCommands[] = {
    {"/help", "", "this list", show_help},
    {"/clear", "", "begin a new conversation", clear},
    {"/undo", "", "take back the last question and its answer", undo},
    {"/regen", "", "answer the last question again", regenerate},
    {"/edit", "TEXT", "ask this in place of the last question", edit},
    {"/system", "[TEXT]", "show or set the system message; off: the model's own", system_message},
    {"/save", "[NAME]", "save the conversation; a new name is a branch", save},
    {"/load", "[NAME]", "go on with a saved one; list them", load},
    {"/export", "FILE", "write it as Markdown (.md) or JSON (.json)", export_to},
    {"/read", "FILE", "put a text file before the next question", read},
    {"/set", "[NAME VALUE]", "show or change how answers are made", set},
    {"/model", "[FILE]", "show or change the model", model},
    {"/stats", "", "speed of the last answer, and its share of the machine's limit", stats},
    {"/tokens", "[TEXT]", "tokens of the conversation, or of a text", tokens},
    {"/exit", "", "leave", leave},
};

void show_help(Chat& chat, const string&) {
  constexpr size_t kWidth = 20;
  string text;
  for (const Command& command : kCommands) {
    string left = string(command.name) + " " + string(command.argument);
    left.resize(kWidth, ' ');
    text += left + string(command.help) + "\n";
  }
  chat.screen.tell(text +
                   "\\ at the end of a line begins another line. Ctrl-C stops an answer; at the "
                   "prompt, Ctrl-D leaves, as does Ctrl-C twice.");
}

}  // namespace

void run_command(Chat& chat, const string& line) {
  const size_t space = std::min(line.find(' '), line.size());
  const string name = trimmed(line.substr(0, space)), argument = trimmed(line.substr(space));
  const auto* command = std::find_if(std::begin(kCommands), std::end(kCommands),
                                     [&](const Command& c) { return c.name == name; });
  if (command == std::end(kCommands))
    fail(ErrorKind::invalid_argument, "there is no command ", printable(name),
         "; /help lists them");
  if (!argument.empty() && command->argument.empty())
    fail(ErrorKind::invalid_argument, name, " takes nothing, found '", printable(argument), "'");
  command->run(chat, argument);
}

}  // namespace pyllamacpp
