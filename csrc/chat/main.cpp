// pyllamacpp-chat: the native program.
#include <algorithm>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <random>

#include "base/error.h"
#include "chat/chat.h"
#include "chat/chat_format.h"
#include "chat/options.h"
#include "chat/screen.h"
#include "session/memory_plan.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
// after windows.h
#include <shellapi.h>
#endif

namespace pyllamacpp {
namespace {

int complete(Context& context, const Options& options, const GenerationParams& params) {
  Screen screen;
  const Answer answer = make_answer(
      context, context.model().tokenizer().encode(*options.prompt, true, false), params, screen);
  screen.end_answer();
  if (answer.end == Answer::End::context_full) screen.notice("the context is full");
  if (options.wants_stats) screen.notice(answer.speed());
  return answer.end == Answer::End::interrupted ? 130 : 0;
}

int chat(Context& context, const Options& options, const GenerationParams& params) {
  const ChatFormat format =
      ChatFormat::choose(context.model().file(), context.model().tokenizer(), options.format);
  std::optional<std::string> system;
  if (!options.system.empty()) system = options.system;
  Conversation conversation(context, format, params, system);
  conversation.when_full = options.when_full;
  Screen screen;
  const bool is_typed = screen.is_typed() && !options.prompt;
  std::cerr << "format " << format.name() << (format.recognised() ? " (the file's own)" : "")
            << ", context " << context.params().n_ctx << " tokens"
            << (is_typed ? "; /help lists the commands, Ctrl-D leaves" : "") << "\n";
  Chat chat{.conversation = conversation,
            .screen = screen,
            .model_name = store::utf8(store::user_path(options.model).stem()),
            .wants_stats = options.wants_stats,
            .keeps_last = is_typed};
  if (!options.resume.empty()) chat.resume(options.resume);
  if (options.prompt) return chat.ask(*options.prompt, false) ? 0 : 130;
  return chat.run();
}

// With as many of the layers asked for on the GPU as fit there.
std::unique_ptr<Context> load(const Options& options) {
  ContextParams params;
  params.n_ctx = options.n_ctx;
  params.n_threads = options.n_threads;
  GpuRequest gpu{.n_layers = options.n_gpu_layers};
  const auto planned = [&] {
    return plan_memory(options.model, params, Repack::automatic, 0, gpu);
  };
  for (;;) {
    MemoryPlan plan = planned();
    if (params.n_ctx == 0) {  // the least of the model's own, 4096 and what fits
      const int64_t most = plan.most_ctx > 0 ? std::min<int64_t>(plan.most_ctx, 4096) : 4096;
      params.n_ctx = int32_t(std::min<int64_t>(plan.context.n_ctx, most));
      plan = planned();
    }
    require_fit(options.model, plan);
    try {
      const auto model = std::make_shared<const Model>(
          options.model, ModelParams{.repack = plan.repack,
                                     .n_gpu_layers = plan.gpu.n_layers,
                                     .n_cpu_ffn = plan.gpu.n_cpu_ffn});
      auto context = std::make_unique<Context>(model, params);
      if (options.n_gpu_layers != 0)
        std::cerr << plan.gpu.n_layers << " of " << model->config().n_layers + 1
                  << " layers on the GPU" << (plan.gpu.obstacle.empty() ? "" : ": ")
                  << plan.gpu.obstacle << "\n";
      return context;
    } catch (const Error& e) {  // the device had less than it said
      if (e.kind() != ErrorKind::memory || plan.gpu.n_layers == 0) throw;
      gpu.n_layers = plan.gpu.n_layers * 3 / 4;
    }
  }
}

int run(const Options& options) {
  const std::unique_ptr<Context> loaded = load(options);
  Context& context = *loaded;
  context.set_poll(is_interrupted);
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
