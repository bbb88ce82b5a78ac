// A read-only memory map of a whole file, on POSIX systems and Windows.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace pyllamacpp {

class MappedFile {
 public:
  // `path` is UTF-8. Throws Error(io) naming the path and the system's reason (a directory, a
  // pipe, a missing or unreadable file); an empty file maps to an empty span. The map follows the
  // file: if another process shortens it, reading the lost part is a fault of the system.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  // Tells the system that these bytes will be read soon / are no longer needed in memory. Hints
  // only: the content stays readable. `part` lies inside bytes().
  void will_need(std::span<const std::byte> part) const;
  void release(std::span<const std::byte> part) const;

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace pyllamacpp
