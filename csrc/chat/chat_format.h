// Conversation formats built into the native program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/model.h"

namespace pyllamacpp {

struct FormatSpec;

class ChatFormat {
 public:
  // `name`: a format's name, or empty to recognise the file's own template. Throws
  // Error(unsupported) when that is not possible, naming the formats.
  static ChatFormat choose(const Model& model, std::string_view name);
  // Names of all formats: "chatml, llama-2, ...".
  static std::string names();

  // "format NAME", and whether the file's own template is of it.
  std::string stated() const;
  // What is said when the user gives no system message: by the file's template or, where the format
  // was chosen for a file of another, by the format's makers. May be empty.
  const std::string& default_system() const { return default_system_; }

  // Text of the conversation's beginning; `system` may be empty.
  std::string opening(std::string_view system) const;
  // Text of one user message, up to where the answer begins. The first one carries the system
  // message in formats that have no turn of their own for it.
  std::string turn(std::string_view message, std::string_view system, bool first) const;
  // Text of an answer, up to the next turn.
  std::string answer(std::string_view text) const;
  // Texts that end an answer, besides the tokens that do.
  std::vector<std::string> stop() const;

 private:
  std::string with_eos(std::string_view text) const;

  const FormatSpec* spec_ = nullptr;
  bool recognised_ = false;
  std::string default_system_;
  std::string eos_;   // text of the end-of-sequence token
  std::string date_;  // of formats whose system message states one
};

}  // namespace pyllamacpp
