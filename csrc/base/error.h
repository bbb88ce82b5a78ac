// The one family of exceptions. Bindings map `ErrorKind` to the Python classes of
// pyllamacpp/errors.py; the C ABI maps it to a code and keeps the sentence in last_error().
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace pyllamacpp {

enum class ErrorKind {
  invalid_argument = 1,  // a caller's value is out of range
  format,                // a file's content is wrong
  io,                    // the system refused a file operation
  memory,                // an allocation was refused
  unsupported,           // valid, but not something this engine can run
  context_full,          // the KV cache has no room for the tokens asked for
  cancelled,             // the caller asked to stop
  device,                // the GPU or its driver failed
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& sentence) : std::runtime_error(sentence), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Throws Error with the sentence made of `parts`, each written with operator<<.
template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw Error(kind, sentence.str());
}

}  // namespace pyllamacpp
