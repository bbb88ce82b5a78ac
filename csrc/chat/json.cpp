#include "chat/json.h"

#include <algorithm>

#include "text/utf8.h"

namespace pyllamacpp {

namespace {

constexpr int kMostLevels = 100;  // of arrays and objects: each takes some of the stack

constexpr char32_t kFirstHigh = 0xD800, kFirstLow = 0xDC00, kLastLow = 0xDFFF;
// Where surrogateescape puts bytes, of which only those from 0x80 on can be odd.
constexpr char32_t kFirstByte = kFirstLow + 0x80, kLastByte = kFirstLow + 0xFF;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Each function takes what it is named after, and is false where that is not there.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  bool document(JsonValue* out) {
    if (!value(out, 0)) return false;
    space();
    return at_ == text_.size();
  }

 private:
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void space() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }

  bool take(std::string_view what) {
    if (text_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }

  bool value(JsonValue* out, int level) {
    using Kind = JsonValue::Kind;
    space();
    switch (next()) {
      case '"':
        out->kind = Kind::string;
        return string(&out->text);
      case '[':
      case '{':
        out->kind = next() == '[' ? Kind::array : Kind::object;
        return level < kMostLevels && members(out, level + 1);
      case 't':
      case 'f':
        out->kind = Kind::boolean;
        out->text = next() == 't' ? "true" : "false";
        return take(out->text);
      case 'n':
        return take("null");
      default:
        out->kind = Kind::number;
        return number(&out->text);
    }
  }

  bool members(JsonValue* out, int level) {
    const bool named = out->kind == JsonValue::Kind::object;
    const std::string_view closing = named ? "}" : "]";
    ++at_;
    space();
    if (take(closing)) return true;
    do {
      space();
      if (named) {
        if (!string(&out->names.emplace_back())) return false;
        space();
        if (!take(":")) return false;
      }
      if (!value(&out->values.emplace_back(), level)) return false;
      space();
    } while (take(","));
    return take(closing);
  }

  bool digits() {
    const size_t first = at_;
    while (is_digit(next())) ++at_;
    return at_ > first;
  }

  bool number(std::string* out) {
    const size_t first = at_;
    take("-");
    if (!take("0") && !digits()) return false;
    if (take(".") && !digits()) return false;
    if (take("e") || take("E")) {
      if (!take("+")) take("-");
      if (!digits()) return false;
    }
    *out = text_.substr(first, at_ - first);
    return true;
  }

  bool string(std::string* out) {
    if (!take("\"")) return false;
    while (at_ < text_.size()) {
      if (take("\"")) return true;
      if (take("\\")) {
        if (!escape(out)) return false;
        continue;
      }
      const Utf8Char read = decode_utf8(text_, at_);
      if (read.status != Utf8Status::valid || read.code < 0x20) return false;
      out->append(text_, at_, read.size);
      at_ += read.size;
    }
    return false;
  }

  bool escape(std::string* out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    if (const size_t i = kNames.find(next()); i != std::string_view::npos) {
      ++at_;
      *out += kMeant[i];
      return true;
    }
    char32_t code = 0;
    if (!unit(&code)) return false;
    if (code < kFirstHigh || code > kLastLow) {
      append_utf8(out, code);
      return true;
    }
    if (code >= kFirstByte && code <= kLastByte) {
      *out += static_cast<char>(code & 0xFF);
      return true;
    }
    char32_t low = 0;
    if (code >= kFirstLow || !take("\\") || !unit(&low)) return false;
    if (low < kFirstLow || low > kLastLow) return false;
    append_utf8(out, 0x10000 + ((code - kFirstHigh) << 10) + (low - kFirstLow));
    return true;
  }

  // uXXXX, behind its backslash.
  bool unit(char32_t* code) {
    if (!take("u") || text_.size() - at_ < 4) return false;
    *code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const char c = next() >= 'A' && next() <= 'F' ? char(next() + 'a' - 'A') : next();
      const size_t digit = kDigits.find(c);
      if (digit == std::string_view::npos) return false;
      *code = *code * 16 + char32_t(digit);
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

void append_unit(std::string* out, char32_t code) {
  constexpr char kDigits[] = "0123456789abcdef";
  *out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) *out += kDigits[code >> shift & 15];
}

}  // namespace

const JsonValue* JsonValue::find(std::string_view name) const {
  for (size_t i = names.size(); i-- > 0;)
    if (names[i] == name) return &values[i];
  return nullptr;
}

std::optional<JsonValue> parse_json(std::string_view text) {
  JsonValue value;
  if (!Parser(text).document(&value)) return std::nullopt;
  return value;
}

std::string quoted(std::string_view text, bool ascii) {
  constexpr std::string_view kMeant = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const Utf8Char read = next_char(text, at);
    const std::string_view bytes = text.substr(at, read.size);
    const size_t i = kMeant.find(bytes[0]);
    at += read.size;
    if (i != std::string_view::npos) {
      out += '\\';
      out += kNames[i];
    } else if (read.code >= 0x20 && (read.code < 0x7F || !ascii)) {
      out += bytes;
    } else if (read.status != Utf8Status::valid) {
      append_unit(&out, kFirstLow + static_cast<unsigned char>(bytes[0]));
    } else if (read.code < 0x10000) {
      append_unit(&out, read.code);
    } else {
      append_unit(&out, kFirstHigh + ((read.code - 0x10000) >> 10));
      append_unit(&out, kFirstLow + (read.code & 0x3FF));
    }
  }
  return out + '"';
}

}  // namespace pyllamacpp
