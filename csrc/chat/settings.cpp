#include "chat/settings.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "chat/number.h"
#include "text/utf8.h"

namespace pyllamacpp {

namespace {

using std::string;

struct SamplingSetting {
  std::string_view name;
  std::variant<float SamplingParams::*, int32_t SamplingParams::*, uint64_t SamplingParams::*>
      value;
};

constexpr SamplingSetting kSampling[] = {
    {"temperature", &SamplingParams::temperature},
    {"top_k", &SamplingParams::top_k},
    {"top_p", &SamplingParams::top_p},
    {"min_p", &SamplingParams::min_p},
    {"seed", &SamplingParams::seed},
    {"tfs_z", &SamplingParams::tfs_z},
    {"typical_p", &SamplingParams::typical_p},
    {"repeat_penalty", &SamplingParams::repeat_penalty},
    {"frequency_penalty", &SamplingParams::frequency_penalty},
    {"presence_penalty", &SamplingParams::presence_penalty},
    {"penalty_last_n", &SamplingParams::penalty_last_n},
    {"dynatemp_range", &SamplingParams::dynatemp_range},
    {"dynatemp_exponent", &SamplingParams::dynatemp_exponent},
    {"mirostat_mode", &SamplingParams::mirostat_mode},
    {"mirostat_tau", &SamplingParams::mirostat_tau},
    {"mirostat_eta", &SamplingParams::mirostat_eta},
    {"adaptive_target", &SamplingParams::adaptive_target},
    {"adaptive_decay", &SamplingParams::adaptive_decay},
    {"dry_multiplier", &SamplingParams::dry_multiplier},
    {"dry_base", &SamplingParams::dry_base},
    {"dry_allowed_length", &SamplingParams::dry_allowed_length},
    {"dry_penalty_last_n", &SamplingParams::dry_penalty_last_n},
    {"xtc_probability", &SamplingParams::xtc_probability},
    {"xtc_threshold", &SamplingParams::xtc_threshold},
    {"top_n_sigma", &SamplingParams::top_n_sigma},
};

template <class T>
string to_text(T value) {
  char text[32];
  return {text, std::to_chars(text, std::end(text), value).ptr};
}

template <class T>
T to_number(const string& name, const string& text) {
  const std::optional<T> value = parse_number<T>(text);
  if (!value)
    fail(ErrorKind::invalid_argument, name, " must be ",
         std::is_floating_point_v<T> ? "a number" : "an integer", ", found '", printable(text),
         "'");
  return *value;
}

const SamplingSetting* find_sampling(const string& name) {
  const auto* found = std::find_if(std::begin(kSampling), std::end(kSampling),
                                   [&](const SamplingSetting& s) { return s.name == name; });
  return found == std::end(kSampling) ? nullptr : found;
}

string line(std::string_view name, std::string_view value) {
  return string(name) + " " + string(value);
}

}  // namespace

string shown_settings(const Chat& chat, const string& name) {
  const Conversation& conversation = chat.conversation;
  string text;
  const auto add = [&](std::string_view setting, std::string_view value) {
    if (!name.empty() && name != setting) return;
    if (!text.empty()) text += '\n';
    text += line(setting, value);
  };
  for (const SamplingSetting& setting : kSampling)
    add(setting.name,
        std::visit([&](auto value) { return to_text(conversation.params.sampling.*value); },
                   setting.value));
  add("max_tokens", to_text(conversation.params.max_tokens));
  add("when_full", kFullContextNames[size_t(conversation.when_full)]);
  add("stats", chat.wants_stats ? "on" : "off");
  if (text.empty())
    fail(ErrorKind::invalid_argument, "there is no setting ", printable(name), "; /set lists them");
  return text;
}

void change_setting(Chat& chat, const string& name, const string& value) {
  Conversation& conversation = chat.conversation;
  if (name == "max_tokens") {
    conversation.params.max_tokens = std::max(to_number<int32_t>(name, value), -1);
  } else if (name == "stats") {
    if (value != "on" && value != "off")
      fail(ErrorKind::invalid_argument, "stats must be off or on, found '", printable(value), "'");
    chat.wants_stats = value == "on";
  } else if (name == "when_full") {
    conversation.when_full = full_context_of(name, value);
  } else if (const SamplingSetting* setting = find_sampling(name)) {
    SamplingParams changed = conversation.params.sampling;
    std::visit(
        [&](auto member) {
          using T = std::remove_reference_t<decltype(changed.*member)>;
          changed.*member = to_number<T>(name, value);
        },
        setting->value);
    check(changed);
    conversation.params.sampling = changed;
    if (name == "seed") conversation.reseed(changed.seed);
  } else {
    shown_settings(chat, name);  // says that there is none
  }
}

}  // namespace pyllamacpp
