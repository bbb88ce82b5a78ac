// Reads forward over the bytes of a GGUF file; every read is checked against what is left.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "gguf/gguf_reader.h"

namespace pyllamacpp {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they lie");

// Text from a file as messages show it: quoted, shortened, other than printable ASCII as \xNN.
std::string quoted(std::string_view text);

class ByteCursor {
 public:
  ByteCursor(std::span<const std::byte> bytes, std::string_view file)
      : bytes_(bytes), file_(file) {}

  // Names the field, key or tensor being read, for messages.
  void enter(std::string place) { place_ = std::move(place); }

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  template <class... Parts>
  [[noreturn]] void error(ErrorKind kind, const Parts&... parts) const {
    fail(kind, file_, ": ", place_, ": ", parts...);
  }

  std::span<const std::byte> take(uint64_t n, const char* what) {
    if (n > left())
      error(ErrorKind::format, what, " takes ", n, " bytes at offset ", position_,
            ", but the file has only ", left(), " bytes left");
    const std::span<const std::byte> part = bytes_.subspan(position_, size_t(n));
    position_ += size_t(n);
    return part;
  }

  template <class T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string_view read_string(const char* what) {
    const uint64_t length = read<uint64_t>("a string length");
    const std::span<const std::byte> text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  // What was read since `position`.
  std::span<const std::byte> since(size_t position) const {
    return bytes_.subspan(position, position_ - position);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::string place_;
  size_t position_ = 0;
};

MetaType read_meta_type(ByteCursor& in, const char* what);

// One value of the type, with everything inside it checked. `depth` counts the arrays around it.
MetaContent read_meta_content(ByteCursor& in, MetaType type, int depth);

}  // namespace pyllamacpp
