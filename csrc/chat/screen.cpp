#include "chat/screen.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "chat/answer.h"
#include "text/utf8.h"

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

namespace pyllamacpp {

namespace {

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

void on_interrupt(int) {
#if defined(_WIN32)
  std::signal(SIGINT, on_interrupt);  // where a handler is used once
#endif
  interrupted = true;
}

bool is_terminal(std::FILE* file) {
#if defined(_WIN32)
  return _isatty(_fileno(file));
#else
  return isatty(fileno(file));
#endif
}

// Control characters as their pictures.
std::string without_controls(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char read = next_char(text, at);
    if (read.code == 0x7F)
      append_utf8(&out, 0x2421);
    else if (read.code < 0x20 && read.code != '\n' && read.code != '\t')
      append_utf8(&out, 0x2400 + read.code);
    else if (read.code >= 0x80 && read.code < 0xA0)
      append_utf8(&out, kReplacementCharacter);
    else
      out += text.substr(at, read.size);
    at += read.size;
  }
  return out;
}

}  // namespace

// A read that waits for a line is ended by Ctrl-C, not begun again.
void catch_interrupts() {
#if defined(_WIN32)
  std::signal(SIGINT, on_interrupt);
#else
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
#endif
}

bool is_interrupted() { return interrupted; }

bool was_interrupted() { return interrupted.exchange(false); }

Screen::Screen(bool as_json)
    : is_typed_(is_terminal(stdin)), is_shown_(is_terminal(stdout)), as_json_(as_json) {}

void Screen::show(std::string_view text) {
  if (as_json_) return;
  if (is_shown_)
    std::cout << without_controls(text) << std::flush;
  else
    std::cout << text << std::flush;
  is_open_ = true;
}

void Screen::end_answer(const Answer* answer) {
  if (as_json_ && answer) std::cout << answer->json() << '\n' << std::flush;
  if (is_open_) std::cout << '\n' << std::flush;
  is_open_ = false;
}

void Screen::notice(std::string_view sentence) {
  if (is_open_ && is_shown_) end_answer(nullptr);
  tell("pyllamacpp-chat: " + std::string(sentence));
}

void Screen::tell(std::string_view lines) { std::cerr << without_controls(lines) << "\n"; }

Screen::Read Screen::read(std::string* question) {
  question->clear();
  for (std::string line;;) {
    if (is_typed_) std::cerr << (question->empty() ? "> " : ". ") << std::flush;
    if (!std::getline(std::cin, line)) {
      std::cin.clear();
      std::clearerr(stdin);
      if (is_typed_) std::cerr << "\n";
      return was_interrupted() ? Read::interrupted : Read::end;
    }
    *question += line;
    if (!line.ends_with('\\')) return Read::question;
    question->back() = '\n';
  }
}

}  // namespace pyllamacpp
