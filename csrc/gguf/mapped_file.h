// A read-only memory map of a whole file, on POSIX systems and Windows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "gguf/map_guard.h"

namespace pyllamacpp {

// What changes when a file is written to.
struct FileState {
  int64_t size = 0;
  int64_t seconds = 0, nanoseconds = 0;  // of the last modification
  bool operator==(const FileState&) const = default;
};

class MappedFile {
 public:
  // `path` is UTF-8. Throws Error(io) naming the path and the system's reason (a directory, a
  // pipe, a missing or unreadable file); an empty file maps to an empty span. The map follows the
  // file: see require_unchanged.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  // Throws Error(io) if the file was shortened or written to since it was opened; what was read
  // since may be anything (zeros for lost pages). Costs a system call. Replacing the file under its
  // name does not change what is mapped; Windows allows nothing else.
  void require_unchanged() const;
  // Tells the system that these bytes will be read soon / are no longer needed in memory. Hints
  // only: the content stays readable. `part` lies inside bytes().
  void will_need(std::span<const std::byte> part) const;
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
  int descriptor_ = -1;  // POSIX: kept to ask for the state
  FileState state_;      // when it was opened
  std::unique_ptr<MapGuard> guard_;
};

}  // namespace pyllamacpp
