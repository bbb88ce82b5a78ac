// Numbers as users type them.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace pyllamacpp {

// Nothing unless all of the text is a number that T can hold.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const char* begin = text.data();
  const char* end = begin + text.size();
  const auto [stop, status] = std::from_chars(begin, end, value);
  if (status != std::errc{} || stop != end) return std::nullopt;
  return value;
}

}  // namespace pyllamacpp
