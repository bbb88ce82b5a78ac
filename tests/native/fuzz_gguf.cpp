// libFuzzer target: any input either parses, after which everything in it can be read, or throws
// pyllamacpp::Error. Anything else ends the program.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "gguf/gguf_reader.h"

namespace {

using namespace pyllamacpp;

volatile uint64_t sink;

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

template <class Getter>
void attempt(Getter getter) {
  try {
    getter();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::format) __builtin_trap();
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    touch_all(GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz"));
  } catch (const Error& error) {
    if (std::string(error.what()).size() > 1000) __builtin_trap();
  }
  return 0;
}
