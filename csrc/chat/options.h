// The command line of the native program.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "chat/conversation.h"
#include "sample/sampler.h"

namespace pyllamacpp {

struct Options {
  std::string model;
  std::optional<std::string> prompt;  // -p: complete this text and exit
  std::string system;                 // empty: the file's own
  std::string format;                 // empty: recognised
  int32_t n_tokens = -1;              // -n: the most per answer; < 0: no limit
  int32_t n_ctx = 0;                  // 0: the least of the file's own and 4096
  int32_t n_threads = 0;
  int32_t n_gpu_layers = 0;  // as ModelParams has it, or what fits of it
  bool seed_given = false;
  FullContext when_full = FullContext::stop;
  std::string resume;  // name of a saved conversation; may be empty
  bool wants_stats = false;
  bool as_json = false;
  SamplingParams sampling;
  bool help = false;
  bool version = false;
};

extern const char* const kHelp;

// `args` without the program's name, UTF-8. Throws UsageError with a sentence.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
Options parse_options(const std::vector<std::string>& args);

}  // namespace pyllamacpp
