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
  const char* end = text.data() + text.size();
  const auto [stop, status] = std::from_chars(text.data(), end, value);
  if (status != std::errc{} || stop != end) return std::nullopt;
  return value;
}

}  // namespace pyllamacpp
