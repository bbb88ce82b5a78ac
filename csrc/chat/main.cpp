// pyllamacpp-chat: the native program.
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <random>
#include <utility>

#include "base/error.h"
#include "chat/chat.h"
#include "chat/chat_format.h"
#include "chat/loading.h"
#include "chat/options.h"
#include "chat/screen.h"
#include "chat/speed.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
// after windows.h
#include <shellapi.h>
#endif

namespace pyllamacpp {
namespace {

int complete(Context& context, const Options& options, const GenerationParams& params) {
  Screen screen(options.as_json);
  const Answer answer = make_answer(
      context, context.model().tokenizer().encode(*options.prompt, true, false), params, screen);
  screen.end_answer(&answer);
  if (answer.end == Answer::End::context_full) screen.notice("the context is full");
  if (options.wants_stats) screen.notice(Speed().sentence(answer, context));
  return answer.end == Answer::End::interrupted ? 130 : 0;
}

int chat(std::unique_ptr<Context> context, const Options& options, const GenerationParams& params) {
  const ChatFormat format = ChatFormat::choose(context->model(), options.format);
  std::optional<std::string> system;
  if (!options.system.empty()) system = options.system;
  Conversation conversation(std::move(context), format, params, system);
  conversation.when_full = options.when_full;
  Screen screen(options.as_json);
  const bool is_typed = screen.is_typed() && !options.prompt;
  std::cerr << format.stated() << ", context " << conversation.n_ctx() << " tokens"
            << (is_typed ? "; /help lists the commands, Ctrl-D leaves" : "") << "\n";
  Chat chat{.conversation = conversation,
            .screen = screen,
            .options = options,
            .wants_stats = options.wants_stats,
            .keeps_last = is_typed};
  if (!options.resume.empty()) chat.resume(options.resume);
  if (options.prompt) return chat.ask(*options.prompt, false) ? 0 : 130;
  return chat.run();
}

int run(const Options& options) {
  std::unique_ptr<Context> context = load_model(options);
  catch_interrupts();
  GenerationParams generation;
  generation.max_tokens = options.n_tokens;
  generation.sampling = options.sampling;
  if (!options.seed_given) generation.sampling.seed = std::random_device()();
  return options.prompt && options.format.empty() ? complete(*context, options, generation)
                                                  : chat(std::move(context), options, generation);
}

int main_utf8(const std::vector<std::string>& args) {
  try {
    const Options options = parse_options(args);
    if (options.help) std::cout << kHelp;
    if (options.format == "list") std::cout << ChatFormat::names() << "\n";
    if (options.version) std::cout << "pyllamacpp-chat " << PYLLAMACPP_VERSION << "\n";
    return options.help || options.version || options.format == "list" ? 0 : run(options);
  } catch (const UsageError& e) {
    std::cerr << "pyllamacpp-chat: error: " << e.what() << "; see --help\n";
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
