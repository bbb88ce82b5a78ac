#include "chat/chat_format.h"

#include "base/error.h"

namespace pyllamacpp {

namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr const char* kFormats = "chatml";

// Templates of this family carry their default system message as a literal,
// '<|im_start|>system\nTEXT<|im_end|>', with \n written as two characters.
std::string find_default_system(std::string_view source) {
  const std::string opening = std::string(kStart) + "system\\n";
  const size_t begin = source.find(opening);
  if (begin == std::string_view::npos) return "";
  const size_t from = begin + opening.size();
  const size_t end = source.find(kEnd, from);
  if (end == std::string_view::npos) return "";
  const std::string_view text = source.substr(from, end - from);
  // Anything of Jinja's in between means that the text is not a literal.
  return text.find_first_of("{}'\"\\") == std::string_view::npos ? std::string(text) : "";
}

}  // namespace

ChatFormat ChatFormat::choose(const GgufFile& file, std::string_view name) {
  const std::string_view source = file.find_string("tokenizer.chat_template").value_or("");
  if (!name.empty() && name != "chatml")
    fail(ErrorKind::unsupported, "--format ", name, " is not built in; there is: ", kFormats);
  if (name.empty() && source.find(kStart) == std::string_view::npos)
    fail(ErrorKind::unsupported, file.name(), ": its chat template ",
         source.empty() ? "is missing" : "is not of a kind built into this program",
         "; choose one with --format (", kFormats, ") or use `pyllamacpp chat`");
  ChatFormat format;
  format.default_system_ = find_default_system(source);
  return format;
}

std::string ChatFormat::opening(std::string_view system) const {
  if (system.empty()) return "";
  return std::string(kStart) + "system\n" + std::string(system) + std::string(kEnd) + "\n";
}

std::string ChatFormat::turn(std::string_view message) const {
  return std::string(kStart) + "user\n" + std::string(message) + std::string(kEnd) + "\n" +
         std::string(kStart) + "assistant\n";
}

std::string ChatFormat::closing() const { return std::string(kEnd) + "\n"; }

}  // namespace pyllamacpp
