#include "chat/chat_format.h"

#include <ctime>

#include "base/error.h"

namespace pyllamacpp {

// A conversation is: the opening, then per message the text before and after it, and the answer
// with the text before and after it. The beginning-of-sequence token comes from the tokenizer.
struct FormatSpec {
  std::string_view name;
  std::string_view marks[2];  // a template of this format has both
  std::string_view system_before, system_after;
  bool system_in_first_turn;  // inside the text of the first message; else a turn of its own
  bool states_date;           // before the system message, which may be empty then
  bool trims;                 // spaces and line ends around messages go
  std::string_view turn_before, turn_after;
  std::string_view answer_before, answer_after;
};

namespace {

// Sources: the templates published with SmolLM2 and Qwen2.5, Llama-2-7b-chat-hf,
// Llama-3.1-8B-Instruct and Meta-Llama-3-8B-Instruct. Of those that one matches, the first counts.
constexpr FormatSpec kFormats[] = {
    {
        "chatml",
        {"<|im_start|>", "<|im_end|>"},
        "<|im_start|>system\n",
        "<|im_end|>\n",
        false,
        false,
        false,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "",
        "<|im_end|>\n",
    },
    {
        "llama-2",
        {"[INST]", "<<SYS>>"},
        "<<SYS>>\n",
        "\n<</SYS>>\n\n",
        true,
        false,
        true,
        "[INST] ",
        " [/INST]",
        " ",
        " </s><s>",
    },
    {
        "llama-3.1",  // and 3.2, 3.3
        {"<|start_header_id|>", "Cutting Knowledge Date: December 2023"},
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
        false,
        true,
        true,
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "",
        "<|eot_id|>",
    },
    {
        "llama-3",
        {"<|start_header_id|>", "<|eot_id|>"},
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
        false,
        false,
        true,
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "",
        "<|eot_id|>",
    },
};

bool is_of(std::string_view source, const FormatSpec& spec) {
  for (const std::string_view mark : spec.marks)
    if (source.find(mark) == std::string_view::npos) return false;
  return true;
}

// As templates do with Python's str.strip(), of which this is ASCII's part.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v\x1c\x1d\x1e\x1f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Templates of ChatML carry their default system message as a literal,
// '<|im_start|>system\nTEXT<|im_end|>', with \n written as two characters.
std::string find_default_system(std::string_view source) {
  constexpr std::string_view kOpening = "<|im_start|>system\\n";
  const size_t begin = source.find(kOpening);
  if (begin == std::string_view::npos) return "";
  const size_t from = begin + kOpening.size();
  const size_t end = source.find("<|im_end|>", from);
  if (end == std::string_view::npos) return "";
  const std::string_view text = source.substr(from, end - from);
  // Anything of Jinja's in between means that the text is not a literal.
  return text.find_first_of("{}'\"\\") == std::string_view::npos ? std::string(text) : "";
}

// The lines with which LLaMA 3.1's template begins its system message. From LLaMA 3.2 on it asks
// for today's date, before that it has one of its own.
std::string date_of(std::string_view source) {
  char today[32] = "26 Jul 2024";
  if (source.find("strftime_now") != std::string_view::npos) {
    const std::time_t now = std::time(nullptr);
    if (const std::tm* local = std::localtime(&now))
      std::strftime(today, sizeof today, "%d %b %Y", local);
  }
  return std::string("Cutting Knowledge Date: December 2023\nToday Date: ") + today + "\n\n";
}

std::string join(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

}  // namespace

std::string ChatFormat::names() {
  std::string names;
  for (const FormatSpec& spec : kFormats) {
    if (!names.empty()) names += ", ";
    names += spec.name;
  }
  return names;
}

ChatFormat ChatFormat::choose(const GgufFile& file, std::string_view name) {
  const std::string_view source = file.find_string("tokenizer.chat_template").value_or("");
  ChatFormat format;
  format.recognised_ = name.empty();
  for (const FormatSpec& spec : kFormats)
    if (name.empty() ? is_of(source, spec) : spec.name == name) {
      format.spec_ = &spec;
      break;
    }
  if (!format.spec_ && !name.empty())
    fail(ErrorKind::unsupported, "--format ", name, " is not built in; there is: ", names());
  if (!format.spec_)
    fail(ErrorKind::unsupported, file.name(), ": its chat template ",
         source.empty() ? "is missing" : "is not of a kind built into this program",
         "; choose one with --format (", names(), ") or use `pyllamacpp chat`");
  if (is_of(source, *format.spec_)) format.default_system_ = find_default_system(source);
  if (format.spec_->states_date) format.date_ = date_of(source);
  return format;
}

std::string_view ChatFormat::name() const { return spec_->name; }

std::string ChatFormat::opening(std::string_view system) const {
  if (spec_->system_in_first_turn || (system.empty() && !spec_->states_date)) return "";
  return join(
      {spec_->system_before, date_, spec_->trims ? trimmed(system) : system, spec_->system_after});
}

std::string ChatFormat::turn(std::string_view message, std::string_view system, bool first) const {
  std::string content(message);
  if (first && spec_->system_in_first_turn && !system.empty())
    content = join({spec_->system_before, system, spec_->system_after, message});
  const std::string_view text = spec_->trims ? trimmed(content) : std::string_view(content);
  return join({spec_->turn_before, text, spec_->turn_after});
}

std::string ChatFormat::answer(std::string_view text) const {
  return join({spec_->answer_before, spec_->trims ? trimmed(text) : text, spec_->answer_after});
}

}  // namespace pyllamacpp
