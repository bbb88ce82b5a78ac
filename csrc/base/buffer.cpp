#include "base/buffer.h"

#include <cstdint>

#include "base/error.h"

namespace pyllamacpp {

// calloc asks the system for fresh zero pages, which cost nothing until used.
Buffer::Buffer(size_t size, const char* what) : size_(size) {
  if (size <= SIZE_MAX - kAlignment) owner_.reset(std::calloc(size + kAlignment, 1));
  if (!owner_)
    fail(ErrorKind::memory, "not enough memory for the ", what, " (", size >> 20, " MiB)");
  const size_t address = reinterpret_cast<size_t>(owner_.get());
  data_ = static_cast<std::byte*>(owner_.get()) + (kAlignment - address % kAlignment);
}

}  // namespace pyllamacpp
