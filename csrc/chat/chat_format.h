// Conversation formats built into the native program.
#pragma once

#include <string>
#include <string_view>

#include "gguf/gguf_reader.h"

namespace pyllamacpp {

class ChatFormat {
 public:
  // `name`: a format's name, or empty to recognise the file's own template. Throws
  // Error(unsupported) when that is not possible, naming the formats.
  static ChatFormat choose(const GgufFile& file, std::string_view name);

  std::string_view name() const { return "chatml"; }
  // What the file's template says when the user gives no system message; may be empty.
  const std::string& default_system() const { return default_system_; }

  // Text of the conversation's beginning; `system` may be empty.
  std::string opening(std::string_view system) const;
  // Text of one user message, up to where the answer begins.
  std::string turn(std::string_view message) const;
  // Text between an answer and the next turn.
  std::string closing() const;

 private:
  std::string default_system_;
};

}  // namespace pyllamacpp
