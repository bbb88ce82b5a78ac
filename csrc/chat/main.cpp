// pyllamacpp-chat: the native program. Answers go to standard output, everything else to standard
// error.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <random>

#include "base/error.h"
#include "chat/chat_format.h"
#include "chat/options.h"
#include "session/generation.h"
#include "session/memory_plan.h"

#if defined(_WIN32)
#define NOMINMAX
#include <io.h>
#include <windows.h>
// after windows.h
#include <shellapi.h>
#else
#include <unistd.h>
#endif

namespace pyllamacpp {
namespace {

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

void on_interrupt(int) { interrupted = true; }

// A read that waits for a line is ended by Ctrl-C, not begun again.
void catch_interrupts() {
#if defined(_WIN32)
  std::signal(SIGINT, on_interrupt);
#else
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
#endif
}

bool is_terminal() {
#if defined(_WIN32)
  return _isatty(_fileno(stdin));
#else
  return isatty(STDIN_FILENO);
#endif
}

enum class End { finished, context_full, interrupted };

struct Answer {
  std::string text;
  End end = End::finished;
};

// Writes an answer as it is made.
Answer answer(Context& context, std::vector<int32_t> prompt, const GenerationParams& params) {
  Answer a;
  Generation generation(context, 0, std::move(prompt), params);
  try {
    for (;;) {
      const GenerationStep step = generation.next();
      std::cout << step.text << std::flush;
      a.text += step.text;
      if (step.finish_reason == FinishReason::length &&
          params.max_tokens != generation.n_generated())
        a.end = End::context_full;
      if (step.finish_reason != FinishReason::none) break;
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::cancelled) throw;
    a.end = End::interrupted;
  }
  std::cout << std::endl;
  return a;
}

int complete(Context& context, const Options& options, const GenerationParams& params) {
  const Answer a =
      answer(context, context.model().tokenizer().encode(*options.prompt, true, false), params);
  if (a.end == End::context_full) std::cerr << "pyllamacpp-chat: the context is full\n";
  return a.end == End::interrupted ? 130 : 0;
}

// Not in any text that is UTF-8.
constexpr std::string_view kMark = "\xFF\xFE\xFF";

// A line of standard input, or the message given as an option, once.
bool next_message(const Options& options, bool terminal, bool first, std::string* message) {
  if (options.prompt) {
    *message = first ? *options.prompt : "";
    return first;
  }
  if (terminal) std::cerr << "> " << std::flush;
  return bool(std::getline(std::cin, *message));
}

int chat(Context& context, const Options& options, GenerationParams params) {
  const Tokenizer& tokenizer = context.model().tokenizer();
  const ChatFormat format = ChatFormat::choose(context.model().file(), tokenizer, options.format);
  params.stop = format.stop();
  const bool terminal = is_terminal() && !options.prompt;
  std::cerr << "format " << format.name() << (format.recognised() ? " (the file's own)" : "")
            << ", context " << context.params().n_ctx << " tokens"
            << (terminal ? "; Ctrl-C stops an answer, Ctrl-D leaves" : "") << "\n";
  // Special tokens that a message or an answer spells are text.
  const auto marked = [&](std::string_view text) { return tokenizer.marked(text, kMark); };
  const std::string system =
      marked(options.system.empty() ? format.default_system() : options.system);
  std::string conversation = format.opening(system);
  bool first = true;
  for (std::string line;;) {
    interrupted = false;
    if (!next_message(options, terminal, first, &line)) break;
    if (line.empty()) continue;
    const std::string turn = format.turn(marked(line), system, first);
    const std::vector<int32_t> prompt = tokenizer.encode(conversation + turn, true, true, kMark);
    if (int32_t(prompt.size()) >= context.params().n_ctx) {
      std::cerr << "pyllamacpp-chat: the context of " << context.params().n_ctx
                << " tokens has no room for this message; start again or use a larger -c\n";
      if (!terminal) return 1;
      continue;
    }
    const Answer a = answer(context, prompt, params);
    if (a.end == End::context_full)
      std::cerr << "pyllamacpp-chat: the context is full; the answer ends here\n";
    conversation += turn + format.answer(marked(a.text));
    first = false;
    if (options.prompt && a.end == End::interrupted) return 130;
  }
  if (terminal) std::cerr << "\n";
  return 0;
}

int run(const Options& options) {
  ContextParams params;
  params.n_ctx = options.n_ctx;
  params.n_threads = options.n_threads;
  MemoryPlan plan = plan_memory(options.model, params, Repack::automatic);
  if (options.n_ctx == 0) {  // the least of the model's own, 4096 and what fits
    const int64_t most = plan.most_ctx > 0 ? std::min<int64_t>(plan.most_ctx, 4096) : 4096;
    params.n_ctx = int32_t(std::min<int64_t>(plan.context.n_ctx, most));
    plan = plan_memory(options.model, params, Repack::automatic);
  }
  require_fit(options.model, plan);
  const auto model =
      std::make_shared<const Model>(options.model, ModelParams{.repack = plan.repack});
  Context context(model, params);
  context.set_poll([] { return interrupted.load(); });
  catch_interrupts();
  GenerationParams generation;
  generation.max_tokens = options.n_tokens;
  generation.sampling = options.sampling;
  if (!options.seed_given) generation.sampling.seed = std::random_device()();
  return options.prompt && options.format.empty() ? complete(context, options, generation)
                                                  : chat(context, options, generation);
}

int main_utf8(const std::vector<std::string>& args) {
  try {
    const Options options = parse_options(args);
    if (options.help) std::cout << kHelp;
    if (options.format == "list") std::cout << ChatFormat::names() << "\n";
    if (options.version) std::cout << "pyllamacpp-chat " << PYLLAMACPP_VERSION << "\n";
    return options.help || options.version || options.format == "list" ? 0 : run(options);
  } catch (const UsageError& e) {
    std::cerr << "pyllamacpp-chat: error: " << e.sentence << "; see --help\n";
    return 2;
  } catch (const std::bad_alloc&) {
    std::cerr << "pyllamacpp-chat: error: not enough memory\n";
  } catch (const std::exception& e) {
    std::cerr << "pyllamacpp-chat: error: " << e.what() << "\n";
  }
  return 1;
}

}  // namespace
}  // namespace pyllamacpp

int main(int argc, char** argv) {
#if defined(_WIN32)
  // argv is in the system's code page; the wide command line loses nothing.
  SetConsoleOutputCP(CP_UTF8);
  (void)argv;
  wchar_t** wide = CommandLineToArgvW(GetCommandLineW(), &argc);
  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) {
    std::string arg(
        size_t(WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, nullptr, 0, nullptr, nullptr)), 0);
    WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, arg.data(), int(arg.size()), nullptr, nullptr);
    arg.pop_back();
    args.push_back(std::move(arg));
  }
  return pyllamacpp::main_utf8(args);
#else
  return pyllamacpp::main_utf8({argv + 1, argv + argc});
#endif
}
