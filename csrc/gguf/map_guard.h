// Reading a page of a map that the file has lost (it was shortened, or its disk failed) is a signal
// that ends the process. While a guard lives, such a page of its range reads as zeros instead, and
// the guard knows. POSIX only; Windows does not let a mapped file be shortened.
#pragma once

#include <cstddef>
#include <span>

namespace pyllamacpp {

class MapGuard {
 public:
  // `range`: a whole map. It must stay mapped while the guard lives.
  explicit MapGuard(std::span<const std::byte> range);
  ~MapGuard();
  MapGuard(const MapGuard&) = delete;
  MapGuard& operator=(const MapGuard&) = delete;

  // Whether a page was lost. From any thread.
  bool lost() const;

 private:
  int slot_ = -1;
};

}  // namespace pyllamacpp
