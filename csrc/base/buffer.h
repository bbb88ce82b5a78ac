// Owned memory aligned for vectors, zeroed, committed by the system as it is touched.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

namespace pyllamacpp {

class Buffer {
 public:
  static constexpr size_t kAlignment = 64;

  Buffer() = default;
  // Throws Error(memory) naming `what` and the size.
  Buffer(size_t size, const char* what);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  // At least `size` bytes; the content is lost when it has to grow.
  void reserve(size_t size, const char* what) {
    if (size > size_) *this = Buffer(size, what);
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> owner_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Hands out parts of large buffers, which live as long as the arena. What lies together shares the
// system's large pages.
class Arena {
 public:
  // Aligned as a Buffer and zeroed. Throws Error(memory) naming `what`.
  std::byte* take(size_t size, const char* what);

 private:
  std::vector<Buffer> chunks_;
  size_t left_ = 0;  // bytes of the last chunk
};

}  // namespace pyllamacpp
