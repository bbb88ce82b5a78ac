// libFuzzer target: whatever bytes are opened as a model (or as the parts of a split one), they
// either are refused with one short sentence, or everything in them can be read, text can be
// tokenized and the model runs. Memory stays within a stated bound of the size of the input.
// Anything else ends the program. The parts of a split model follow each other with kNextPart
// between.
#include <sanitizer/allocator_interface.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "gguf/gguf_reader.h"
#include "session/generation.h"
#include "session/memory_plan.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace pyllamacpp;

constexpr std::string_view kNextPart = "\n--next part--\n";

// What loading and running may take: the arena's first chunk and the buffers of a batch of 8 rows,
// and for every byte of the file what the rows of a panel make of it.
constexpr size_t kBaseBytes = size_t{64} << 20;
constexpr size_t kBytesPerByte = 1024;

volatile uint64_t sink;
size_t live_bytes = 0, most_bytes = 0;

void on_malloc(const volatile void* p, size_t) {
  live_bytes += __sanitizer_get_allocated_size(p);
  most_bytes = std::max(most_bytes, live_bytes);
}

void on_free(const volatile void* p) {
  if (p) live_bytes -= std::min(live_bytes, __sanitizer_get_allocated_size(p));
}

void touch(const MetaContent& content) {
  if (const MetaArray* array = std::get_if<MetaArray>(&content)) {
    for (MetaArrayReader in(*array); !in.done();) touch(in.next());
    return;
  }
  const MetaScalar& scalar = std::get<MetaScalar>(content);
  if (const auto* text = std::get_if<std::string_view>(&scalar)) {
    for (const char c : *text) sink = sink + uint64_t(c);
  } else {
    sink = sink + scalar.index();
  }
}

// Messages go to terminals and logs: short, and without control characters.
void check_sentence(const Error& error) {
  const std::string_view text = error.what();
  if (text.size() > 1000) __builtin_trap();
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) __builtin_trap();
}

template <class Getter>
void attempt(Getter getter) {
  try {
    getter();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::format) __builtin_trap();
    check_sentence(error);
  }
}

void touch_typed(const GgufFile& file, std::string_view key) {
  attempt([&] { sink = sink + file.get_uint(key); });
  attempt([&] { sink = sink + (file.get_float(key) > 0); });
  attempt([&] { sink = sink + file.get_bool(key); });
  attempt([&] { sink = sink + file.get_string(key).size(); });
  attempt([&] { sink = sink + file.get_strings(key).size(); });
  attempt([&] { sink = sink + file.get_floats(key).size(); });
  attempt([&] { sink = sink + file.get_ints(key).size(); });
}

void touch_all(const GgufFile& file) {
  for (const MetaValue& value : file.metadata()) {
    if (file.find(value.key) != &value) __builtin_trap();
    touch(value.value);
    touch_typed(file, value.key);
  }
  for (const TensorInfo& tensor : file.tensors()) {
    if (file.find_tensor(tensor.name) != &tensor) __builtin_trap();
    if (tensor.data.size() != bytes_of(tensor.type, tensor.n_elements())) __builtin_trap();
    if (tensor.offset % file.alignment() != 0) __builtin_trap();
    sink = sink + tensor.n_rows() + uint64_t(tensor.data.front()) + uint64_t(tensor.data.back());
  }
}

// The input as files; returns the path of the first.
std::string write_files(std::string_view input, std::vector<std::string>* paths) {
  static const std::string stem =
      (std::filesystem::temp_directory_path() / ("fuzz_gguf_" + std::to_string(getpid()))).string();
  std::vector<std::string_view> parts;
  for (size_t end; (end = input.find(kNextPart)) != std::string_view::npos && parts.size() < 4;
       input.remove_prefix(end + kNextPart.size()))
    parts.push_back(input.substr(0, end));
  parts.push_back(input);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string ending =
        "-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(parts.size()) + ".gguf";
    paths->push_back(stem + (parts.size() > 1 ? ending : ".gguf"));
    std::ofstream(paths->back(), std::ios::binary) << parts[i];
  }
  return paths->front();
}

std::vector<int32_t> tokenize(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const std::string_view text : {"a b", "<s>[INST] \xff\xf0\x9f 12\n\n</s>", ""})
    for (const bool special : {false, true}) {
      ids = tokenizer.encode(text, special, special);
      for (const int32_t id : ids)
        if (id < 0 || id >= tokenizer.size()) __builtin_trap();
      sink = sink + tokenizer.decode(ids, special).size();
    }
  ids.push_back(tokenizer.size() - 1);
  return ids;
}

// Two tokens, the second with what the first left in the cache.
void generate(const std::shared_ptr<const Model>& model, const ContextParams& params, bool greedy) {
  Context context(model, params);
  GenerationParams generation_params;
  generation_params.max_tokens = 2;
  generation_params.ignore_eos = true;
  if (greedy) generation_params.sampling.temperature = 0;
  std::vector<int32_t> ids = tokenize(model->tokenizer());
  ids.resize(std::min<size_t>(ids.size(), 12));
  Generation generation(context, 0, ids, generation_params);
  while (generation.next().finish_reason == FinishReason::none) {
  }
}

void load_and_run(const std::string& path, Repack repack) {
  ContextParams params;
  params.n_ctx = 16;
  params.n_batch = 8;
  params.n_threads = 1;
  const ModelParams vocab_only{.vocab_only = true, .repack = repack, .n_threads = 1};
  tokenize(Model(path, vocab_only).tokenizer());
  require_fit(path, plan_memory(path, params, repack));
  const ModelParams whole{.vocab_only = false, .repack = repack, .n_threads = 1};
  const auto model = std::make_shared<const Model>(path, whole);
  generate(model, params, repack == Repack::never);
}

// Where the data of the first tensor begins; 0: the input is no GGUF file.
size_t header_size(std::string_view input) {
  try {
    const GgufFile file = GgufFile::parse(std::as_bytes(std::span(input)), "fuzz");
    uint64_t first = input.size();
    for (const TensorInfo& t : file.tensors()) first = std::min(first, t.offset);
    return size_t(first);
  } catch (const Error&) {
    return 0;
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (!__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free)) __builtin_trap();
  return 0;
}

// Most of a model is weights, of which any bytes are as good as any others: mostly the header is
// changed, and the data stays where the header says.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  constexpr size_t kAlignment = 32, kGrowth = 4096;
  const size_t header = header_size({reinterpret_cast<const char*>(data), size});
  if (header == 0 || seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<uint8_t> changed(data, data + header);
  changed.resize(header + kGrowth);
  changed.resize(LLVMFuzzerMutate(changed.data(), header, changed.size()));
  changed.resize((changed.size() + kAlignment - 1) / kAlignment * kAlignment);
  changed.insert(changed.end(), data + header, data + size);
  const size_t n = std::min(changed.size(), max_size);
  std::memcpy(data, changed.data(), n);
  return n;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> paths;
  try {
    touch_all(GgufFile::parse(std::as_bytes(std::span(input)), "fuzz"));
    const std::string path = write_files(input, &paths);
    live_bytes = most_bytes = 0;
    for (const Repack repack : {Repack::automatic, Repack::never}) load_and_run(path, repack);
  } catch (const Error& error) {
    check_sentence(error);
    // The machine has memory for what a file of this size may ask.
    if (error.kind() == ErrorKind::memory || error.kind() == ErrorKind::cancelled) __builtin_trap();
  }
  if (most_bytes > kBaseBytes + kBytesPerByte * size) __builtin_trap();
  for (const std::string& path : paths) std::filesystem::remove(path);
  return 0;
}
