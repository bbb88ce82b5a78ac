#include "text/utf8.h"

namespace pyllamacpp {
namespace {

constexpr std::string_view kReplacementBytes = "\xEF\xBF\xBD";

// Length of the sequence that `lead` starts and the range of its second byte, which rules out
// overlong forms, surrogates and code points above U+10FFFF (Unicode 16.0, table 3-7).
struct Lead {
  uint32_t size;
  unsigned char second_low, second_high;
};

Lead lead_of(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {1, 0, 0};
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1, Utf8Status::valid};
  const Lead lead = lead_of(first);
  if (lead.size == 1) return {kReplacementCharacter, 1, Utf8Status::invalid};
  char32_t code = first & (0x7Fu >> lead.size);
  for (uint32_t i = 1; i < lead.size; ++i) {
    if (at + i >= text.size()) return {kReplacementCharacter, i, Utf8Status::truncated};
    const auto byte = static_cast<unsigned char>(text[at + i]);
    const unsigned char low = i == 1 ? lead.second_low : 0x80;
    const unsigned char high = i == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) return {kReplacementCharacter, i, Utf8Status::invalid};
    code = code << 6 | (byte & 0x3Fu);
  }
  return {code, lead.size, Utf8Status::valid};
}

void append_utf8(std::string* out, char32_t code) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::string Utf8Stream::push(std::string_view bytes) {
  std::string joined;
  if (!held_.empty()) {
    joined = held_.append(bytes);
    held_.clear();
    bytes = joined;
  }
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Char read = decode_utf8(bytes, at);
    if (read.status == Utf8Status::truncated) {
      held_ = bytes.substr(at);
      break;
    }
    if (read.status == Utf8Status::valid) {
      out.append(bytes.substr(at, read.size));
    } else {
      out.append(kReplacementBytes);
    }
    at += read.size;
  }
  return out;
}

std::string Utf8Stream::flush() {
  std::string out;
  if (!held_.empty()) out = kReplacementBytes;
  held_.clear();
  return out;
}

std::string printable(std::string_view bytes) {
  constexpr size_t kMost = 80;
  constexpr char kHex[] = "0123456789abcdef";
  Utf8Stream stream;
  std::string text = stream.push(bytes.substr(0, kMost));
  text.append(stream.flush());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char read = next_char(text, at);
    const auto code = uint32_t(read.code);
    if (code < 0x20 || (code >= 0x7F && code < 0xA0)) {
      out.append("\\x");
      out.push_back(kHex[code >> 4]);
      out.push_back(kHex[code & 15]);
    } else if ((code >= 0x200B && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
               (code >= 0x2066 && code <= 0x2069)) {  // line separators, changes of direction
      out.append(kReplacementBytes);
    } else {
      out.append(text, at, read.size);
    }
    at += read.size;
  }
  if (bytes.size() > kMost) out.append("...");
  return out;
}

}  // namespace pyllamacpp
