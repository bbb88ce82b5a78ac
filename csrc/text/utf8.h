// UTF-8 read from bytes that may be anything, and a stream that lets only whole characters through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pyllamacpp {

constexpr char32_t kReplacementCharacter = 0xFFFD;

enum class Utf8Status {
  valid,
  invalid,    // `size` bytes that no continuation can make valid
  truncated,  // the text ends inside a sequence that is valid so far
};

struct Utf8Char {
  char32_t code;  // kReplacementCharacter unless valid
  uint32_t size;  // bytes, at least 1
  Utf8Status status;
};

// The character at `at` < text.size(). An invalid sequence is its "maximal subpart" (Unicode 16.0,
// section 3.9, table 3-8), which is what Python's errors='replace' turns into one U+FFFD.
Utf8Char decode_utf8(std::string_view text, size_t at);

// The same for tokenizers, which must lose no byte: anything that is not valid UTF-8 is one
// U+FFFD per byte. Inline because the scanners call it for every character.
inline Utf8Char next_char(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) return {byte, 1, Utf8Status::valid};
  Utf8Char read = decode_utf8(text, at);
  if (read.status != Utf8Status::valid) read.size = 1;
  return read;
}

// Appends the UTF-8 of a code point.
void append_utf8(std::string* out, char32_t code);

// Turns bytes that arrive in any pieces into text: the concatenation of all that push() and
// flush() return equals bytes.decode('utf-8', errors='replace') of Python.
class Utf8Stream {
 public:
  // What has become certain: a sequence cut by the end of `bytes` is held back (3 bytes at most).
  std::string push(std::string_view bytes);

  // U+FFFD if a sequence was left incomplete. The stream is empty afterwards and can go on.
  std::string flush();

 private:
  std::string held_;
};

// Text of a file for the sentence of an error: valid UTF-8, not long, and nothing that a terminal
// obeys (control characters as \xNN).
std::string printable(std::string_view bytes);

}  // namespace pyllamacpp
