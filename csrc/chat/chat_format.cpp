#include "chat/chat_format.h"

#include <ctime>
#include <optional>

#include "base/error.h"

namespace pyllamacpp {

// A conversation is: the opening, then per message the text before and after it, and the answer
// with the text before and after it. The beginning-of-sequence token comes from the tokenizer, as
// does the end-of-sequence token, kEos here.
struct FormatSpec {
  std::string_view name;
  std::string_view marks[2];  // a template of this format has both
  std::string_view system_before, system_after;
  bool system_in_first_turn;  // inside the text of the first message; else a turn of its own
  bool states_date;           // before the system message, which may be empty then
  bool trims;                 // spaces and line ends around messages go
  std::string_view turn_before, turn_after;
  std::string_view answer_before, answer_after;
  std::string_view default_system = {};  // of a file that is not of this format
  std::string_view stop = {};            // ends an answer, besides the tokens that end one
};

namespace {

constexpr std::string_view kEos = "\x01";

// Sources: the templates published with SmolLM2 and Qwen2.5, Llama-2-7b-chat-hf,
// Llama-3.1-8B-Instruct and Meta-Llama-3-8B-Instruct, Mistral-7B-Instruct-v0.2 (Mixtral's, too) and
// v0.1, zephyr-7b-beta (TinyLlama's, too); for vicuna and alpaca, whose makers published none,
// those that training programs write into files. Of those that one matches, the first counts. What
// templates of one family differ in, white space above all, is in the marks.
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
        "mistral",
        {"{{ '[INST] ' + message['content'] + ' [/INST]' }}",
         "{{ message['content'] + eos_token}}"},
        "",
        "\n\n",
        true,  // their templates refuse a system message; Mistral advises this
        false,
        false,
        "[INST] ",
        " [/INST]",
        "",
        kEos,
    },
    {
        "mistral-v0.1",
        {"{{ '[INST] ' + message['content'] + ' [/INST]' }}",
         "{{ message['content'] + eos_token + ' ' }}"},
        "",
        "\n\n",
        true,
        false,
        false,
        "[INST] ",
        " [/INST]",
        "",
        "\x01 ",
    },
    {
        "zephyr",
        {"{{ '<|user|>\n' + message['content'] + eos_token }}\n", "{{ '<|assistant|>' }}\n"},
        "<|system|>\n",
        "\x01\n",
        false,
        false,
        false,
        "<|user|>\n",
        "\x01\n<|assistant|>\n",
        "",
        "\x01\n",
    },
    {
        "vicuna",
        {"{{ 'USER: ' + message['content'] + ' ' }}",
         "{{ 'ASSISTANT: ' + message['content'] + eos_token }}"},
        "",
        " ",
        false,
        false,
        false,
        "USER: ",
        " ASSISTANT:",
        " ",
        kEos,
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    },
    {
        "alpaca",
        {"{{ '### Instruction:\n' + message['content'] + '\n\n' }}",
         "{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}"},
        "",
        "\n\n",
        false,
        false,
        false,
        "### Instruction:\n",
        "\n\n### Response:\n",
        "",
        "\x01\n\n",
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.",
        "### Instruction:",
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

// A template with the line ends that it writes as \n.
std::string with_line_ends(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    const bool is_escape = source.substr(i, 2) == "\\n";
    text += is_escape ? '\n' : source[i];
    i += is_escape;
  }
  return text;
}

// The text after `opening`, up to `closing`; empty if anything of Jinja's is in it.
std::string literal_between(std::string_view source, std::string_view opening,
                            std::string_view closing) {
  const size_t begin = source.find(opening);
  if (begin == std::string_view::npos) return "";
  const size_t from = begin + opening.size();
  const size_t end = source.find(closing, from);
  if (end == std::string_view::npos) return "";
  const std::string_view text = source.substr(from, end - from);
  return text.find_first_of("{}'\"\\") == std::string_view::npos ? std::string(text) : "";
}

// What a template says without a system message: ChatML's carry
// '<|im_start|>system\nTEXT<|im_end|>', those of formats with a default, a sentence that begins as
// that does, up to its quote.
std::string find_default_system(std::string_view source, const FormatSpec& spec) {
  if (spec.default_system.empty())
    return literal_between(source, "<|im_start|>system\n", "<|im_end|>");
  // Enough of it to find the sentence, which templates word in several ways: "A chat", "Below ".
  const size_t begin = source.find(spec.default_system.substr(0, 6));
  if (begin == std::string_view::npos || begin == 0) return "";
  const char quote = source[begin - 1];
  std::string text;
  for (size_t i = begin; i < source.size() && source[i] != quote; ++i) {
    if (source[i] == '\\' && i + 1 < source.size()) ++i;
    text += source[i];
  }
  return text.substr(0, text.find_last_not_of(" \n") + 1);
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

ChatFormat ChatFormat::choose(const Model& model, std::string_view name) {
  const GgufFile& file = model.file();
  const Tokenizer& tokenizer = model.tokenizer();
  const std::optional<std::string_view> own = file.find_string("tokenizer.chat_template");
  const std::string source = with_line_ends(own.value_or(""));
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
  format.default_system_ = is_of(source, *format.spec_) ? find_default_system(source, *format.spec_)
                                                        : format.spec_->default_system;
  if (format.spec_->states_date) format.date_ = date_of(source);
  if (tokenizer.data().eos) format.eos_ = tokenizer.piece(*tokenizer.data().eos, true);
  return format;
}

std::string ChatFormat::stated() const {
  return join({"format ", spec_->name, recognised_ ? " (the file's own)" : ""});
}

std::vector<std::string> ChatFormat::stop() const {
  return spec_->stop.empty() ? std::vector<std::string>() : std::vector{std::string(spec_->stop)};
}

std::string ChatFormat::with_eos(std::string_view text) const {
  std::string result;
  for (const char c : text)
    if (c == kEos[0])
      result += eos_;
    else
      result += c;
  return result;
}

std::string ChatFormat::opening(std::string_view system) const {
  if (spec_->system_in_first_turn || (system.empty() && !spec_->states_date)) return "";
  return join({spec_->system_before, date_, spec_->trims ? trimmed(system) : system,
               with_eos(spec_->system_after)});
}

std::string ChatFormat::turn(std::string_view message, std::string_view system, bool first) const {
  std::string content(message);
  if (first && spec_->system_in_first_turn && !system.empty())
    content = join({spec_->system_before, system, spec_->system_after, message});
  const std::string_view text = spec_->trims ? trimmed(content) : std::string_view(content);
  return join({spec_->turn_before, text, with_eos(spec_->turn_after)});
}

std::string ChatFormat::answer(std::string_view text) const {
  return join(
      {spec_->answer_before, spec_->trims ? trimmed(text) : text, with_eos(spec_->answer_after)});
}

}  // namespace pyllamacpp
