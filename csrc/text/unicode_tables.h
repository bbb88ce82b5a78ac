// The character classes that the pre-tokenizers' patterns ask for.
#pragma once

#include <array>
#include <cstdint>

namespace pyllamacpp {

enum class CharClass : uint8_t {
  other,
  letter,  // \p{L}
  number,  // \p{N}
  space,   // White_Space
};

inline constexpr auto kAsciiClasses = [] {
  std::array<CharClass, 128> classes{};
  for (char c = '0'; c <= '9'; ++c) classes[c] = CharClass::number;
  for (char c = 'A'; c <= 'Z'; ++c) classes[c] = classes[c - 'A' + 'a'] = CharClass::letter;
  for (const char c : {'\t', '\n', '\v', '\f', '\r', ' '}) classes[c] = CharClass::space;
  return classes;
}();

// The class of any code point: a table up to U+FFFF, a binary search above.
CharClass class_from_tables(char32_t code);

inline CharClass class_of(char32_t code) {
  return code < 128 ? kAsciiClasses[code] : class_from_tables(code);
}

}  // namespace pyllamacpp
