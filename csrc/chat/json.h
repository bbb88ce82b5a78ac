// JSON, as far as saved conversations need it. Text that is not UTF-8 is written as Python's
// "surrogateescape" does: each odd byte as \udc80 to \udcff.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pyllamacpp {

struct JsonValue {
  enum class Kind { null, boolean, number, string, array, object };

  Kind kind = Kind::null;
  std::string text;                // of a string; of a number or boolean, as it is written
  std::vector<std::string> names;  // of an object's values
  std::vector<JsonValue> values;   // of an array or object

  // An object's value of that name, the last one if there are several; null if there is none.
  const JsonValue* find(std::string_view name) const;
  bool is_string() const { return kind == Kind::string; }
};

// Nothing if the text is anything but one JSON value in UTF-8.
std::optional<JsonValue> parse_json(std::string_view text);

// A string with its quotes; `ascii`: everything else is escaped.
std::string quoted(std::string_view text, bool ascii);

}  // namespace pyllamacpp
