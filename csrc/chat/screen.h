// The terminal, or the pipes in its place: answers to standard output as they are made, everything
// else to standard error, questions from standard input.
#pragma once

#include <string>
#include <string_view>

namespace pyllamacpp {

struct Answer;

// From here on Ctrl-C is noted instead of ending the process; was_interrupted() takes the note
// away.
void catch_interrupts();
bool is_interrupted();
bool was_interrupted();

class Screen {
 public:
  // as_json: of an answer nothing but its object of JSON, when it is over.
  explicit Screen(bool as_json);
  // Whether somebody types the questions.
  bool is_typed() const { return is_typed_; }

  // A piece of an answer. No text steers a terminal, here and below.
  void show(std::string_view text);
  // The answer is over; null: it failed or was stopped before its first word.
  void end_answer(const Answer* answer);
  // What the user should know, and what was asked for by a command: whole lines.
  void notice(std::string_view sentence);
  void tell(std::string_view lines);

  enum class Read { question, end, interrupted };
  // Lines up to one that does not end in a backslash.
  Read read(std::string* question);

 private:
  bool is_typed_, is_shown_;  // standard input, standard output: a terminal
  bool as_json_;
  bool is_open_ = false;  // an answer has not ended its line
};

}  // namespace pyllamacpp
