#include "chat/options.h"

#include "base/error.h"
#include "chat/number.h"

namespace pyllamacpp {

const char* const kHelp =
    R"(Usage: pyllamacpp-chat -m FILE.gguf [options]

Chats with a model in the terminal or, with -p, completes one text. Runs without Python.

  -m, --model FILE     the model, a GGUF file
  -p, --prompt TEXT    complete TEXT, print what follows and exit; with --format: answer TEXT
  -n N                 at most N tokens per answer (default: until it ends)
  -t, --threads N      threads (default: the physical cores this process may use)
  -ngl, --n-gpu-layers N
                       layers on the GPU, counted from the end, as many as fit; -1 or
                       auto: all (default 0)
  -c, --ctx N          context in tokens (default: the least of the file's own, 4096
                       and what fits into memory)
      --temp X         temperature, 0 for greedy (default 0.8)
      --top-k N        keep the N likeliest tokens, 0 for all (default 40)
      --top-p X        keep the likeliest tokens up to this sum (default 0.95)
      --min-p X        drop tokens less likely than X times the likeliest (default 0.05)
      --seed N         the same seed gives the same text (default: another each time)
      --system TEXT    system message (default: the file's own)
      --format NAME    conversation format (default: recognised from the file); list: the names
      --when-full X    a full context ends the answer (stop, the default), drops what is
                       oldest (shift), or is an error (error)
      --resume NAME    go on with a saved conversation; last: the last one
      --stats          say after each answer how fast it was, and what share of this
                       machine's limit that is
      --json           write each answer as an object of JSON on a line of its own: "text",
                       "finish_reason" ("stop", "length" or "interrupted"), counts of
                       tokens and tokens per second
      --version, -h, --help

Questions are lines of standard input. One that begins with / is a command; /help lists them.
While an answer is written, Ctrl-C stops it; at the prompt Ctrl-D leaves, as does Ctrl-C twice.

Examples:
  pyllamacpp-chat -m smollm2.gguf
  pyllamacpp-chat -m smollm2.gguf -p "The capital of France is" -n 16 --temp 0
)";

namespace {

template <class T>
T number(const std::string& option, const std::string& text, T least, T most) {
  const std::optional<T> value = parse_number<T>(text);
  // Written so that NaN is refused too.
  if (!value || !(*value >= least && *value <= most))
    throw UsageError{option + " is '" + text + "', expected a number from " +
                     std::to_string(least) + " to " + std::to_string(most)};
  return *value;
}

FullContext full_context(const std::string& option, const std::string& name) {
  try {
    return full_context_of(option, name);
  } catch (const Error& e) {
    throw UsageError{e.what()};
  }
}

}  // namespace

Options parse_options(const std::vector<std::string>& args) {
  Options o;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& name = args[i];
    const auto is = [&](const char* a, const char* b) { return name == a || name == b; };
    if (is("-h", "--help")) {
      o.help = true;
      return o;
    }
    if (name == "--version") {
      o.version = true;
      return o;
    }
    const auto value = [&]() -> const std::string& {
      if (i + 1 == args.size()) throw UsageError{name + " needs a value"};
      return args[++i];
    };
    const auto next_is = [&](const char* text) {
      const bool is_it = i + 1 < args.size() && args[i + 1] == text;
      if (is_it) ++i;
      return is_it;
    };
    const auto integer = [&](int32_t least, int32_t most) {
      return number<int32_t>(name, value(), least, most);
    };
    const auto real = [&](float least, float most) {
      return number<float>(name, value(), least, most);
    };
    constexpr int32_t kMost = INT32_MAX;
    if (is("-m", "--model"))
      o.model = value();
    else if (is("-p", "--prompt"))
      o.prompt = value();
    else if (name == "-n")
      o.n_tokens = integer(-1, kMost);
    else if (is("-t", "--threads"))
      o.n_threads = integer(1, 512);
    else if (is("-ngl", "--n-gpu-layers"))
      o.n_gpu_layers = next_is("auto") ? -1 : integer(-1, kMost);
    else if (is("-c", "--ctx"))
      o.n_ctx = integer(1, 1 << 30);
    else if (name == "--temp")
      o.sampling.temperature = real(0, 100);
    else if (name == "--top-k")
      o.sampling.top_k = integer(0, kMost);
    else if (name == "--top-p")
      o.sampling.top_p = real(0, 1);
    else if (name == "--min-p")
      o.sampling.min_p = real(0, 1);
    else if (name == "--seed") {
      o.sampling.seed = number<uint64_t>(name, value(), 0, UINT64_MAX);
      o.seed_given = true;
    } else if (name == "--system")
      o.system = value();
    else if (name == "--format")
      o.format = value();
    else if (name == "--resume")
      o.resume = value();
    else if (name == "--stats")
      o.wants_stats = true;
    else if (name == "--json")
      o.as_json = true;
    else if (name == "--when-full")
      o.when_full = full_context(name, value());
    else
      throw UsageError{"unknown option " + name};
  }
  if (o.model.empty() && o.format != "list") throw UsageError{"no model: -m FILE.gguf is needed"};
  const bool is_chat = !o.system.empty() || !o.resume.empty() || o.when_full != FullContext::stop;
  if (o.prompt && o.format.empty() && is_chat)
    throw UsageError{"-p completes a text; --system, --resume and --when-full need --format too"};
  return o;
}

}  // namespace pyllamacpp
