#include "gguf/mapped_file.h"

#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>

#include "base/error.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
// clang-format off: windows.h comes before the headers that need it
#include <windows.h>
#include <memoryapi.h>
// clang-format on
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#endif

namespace pyllamacpp {

namespace {

using Bytes = std::span<const std::byte>;

// The part of `part` that is whole pages (`outward` false), or the pages that hold it.
struct PageRange {
  void* begin = nullptr;
  size_t size = 0;
};

PageRange pages_of(Bytes part, size_t page, bool outward) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t end = begin + part.size();
  const uintptr_t first = (outward ? begin : begin + page - 1) / page * page;
  const uintptr_t last = outward ? end : end / page * page;  // the system rounds the end up
  if (part.empty() || last <= first) return {};
  return {reinterpret_cast<void*>(first), size_t(last - first)};
}

#ifdef _WIN32

struct Handle {
  HANDLE value;
  ~Handle() {
    if (value && value != INVALID_HANDLE_VALUE) CloseHandle(value);
  }
};

std::string to_utf8(const std::wstring& wide) {
  const int n =
      WideCharToMultiByte(CP_UTF8, 0, wide.data(), int(wide.size()), nullptr, 0, nullptr, nullptr);
  std::string out(size_t(n), '\0');
  WideCharToMultiByte(CP_UTF8, 0, wide.data(), int(wide.size()), out.data(), n, nullptr, nullptr);
  return out;
}

std::wstring to_wide(const std::string& path) {
  const int size = int(path.size());
  const int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), size, nullptr, 0);
  if (n <= 0) fail(ErrorKind::io, "'", path, "' cannot be opened: the path is not valid UTF-8");
  std::wstring out(size_t(n), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.data(), size, out.data(), n);
  return out;
}

std::string reason(DWORD code) {
  wchar_t text[512];
  DWORD n = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr,
                           code, 0, text, DWORD(std::size(text)), nullptr);
  while (n > 0 && (text[n - 1] == L'\n' || text[n - 1] == L'\r' || text[n - 1] == L'.')) --n;
  if (n == 0) return "system error " + std::to_string(code);
  return to_utf8(std::wstring(text, n));
}

Bytes map_file(const std::string& path, int*) {
  const std::wstring wide = to_wide(path);
  const DWORD attributes = GetFileAttributesW(wide.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY))
    fail(ErrorKind::io, "'", path, "' cannot be read: it is a directory");
  const Handle file{CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr)};
  if (file.value == INVALID_HANDLE_VALUE)
    fail(ErrorKind::io, "'", path, "' cannot be opened: ", reason(GetLastError()));
  if (GetFileType(file.value) != FILE_TYPE_DISK)
    fail(ErrorKind::io, "'", path, "' cannot be read: it is a pipe or a device, not a file");
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file.value, &size))
    fail(ErrorKind::io, "'", path, "' cannot be read: ", reason(GetLastError()));
  if (size.QuadPart == 0) return {};
  if (uint64_t(size.QuadPart) > std::numeric_limits<size_t>::max())
    fail(ErrorKind::io, "'", path, "' is too large for this process: ", size.QuadPart, " bytes");
  const Handle mapping{CreateFileMappingW(file.value, nullptr, PAGE_READONLY, 0, 0, nullptr)};
  // The view keeps file and mapping alive after their handles are closed.
  const void* view = mapping.value ? MapViewOfFile(mapping.value, FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (!view) fail(ErrorKind::io, "'", path, "' cannot be mapped: ", reason(GetLastError()));
  return {static_cast<const std::byte*>(view), size_t(size.QuadPart)};
}

void unmap(Bytes bytes) { UnmapViewOfFile(bytes.data()); }

// Nobody may write to a file that was opened without FILE_SHARE_WRITE.
FileState state_of(int) { return {}; }

void close_descriptor(int) {}

size_t page_size() {
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  return info.dwPageSize;
}

void advise_will_need(PageRange range) {
  WIN32_MEMORY_RANGE_ENTRY entry{range.begin, range.size};
  PrefetchVirtualMemory(GetCurrentProcess(), 1, &entry, 0);
}

// Unlocking pages that were never locked takes them out of the working set.
void advise_release(PageRange range) { VirtualUnlock(range.begin, range.size); }

#else

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) close(value);
  }
};

std::string reason(int code) { return std::generic_category().message(code); }

// The descriptor of a file that is not empty goes to *kept.
Bytes map_file(const std::string& path, int* kept) {
  // Non-blocking: opening a pipe must come back so that it can be refused.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) fail(ErrorKind::io, "'", path, "' cannot be opened: ", reason(errno));
  struct stat status;
  if (fstat(file.value, &status) != 0)
    fail(ErrorKind::io, "'", path, "' cannot be read: ", reason(errno));
  if (S_ISDIR(status.st_mode))
    fail(ErrorKind::io, "'", path, "' cannot be read: it is a directory");
  if (!S_ISREG(status.st_mode))
    fail(ErrorKind::io, "'", path, "' cannot be read: it is a pipe or a device, not a file");
  if (status.st_size == 0) return {};
  if (uint64_t(status.st_size) > std::numeric_limits<size_t>::max())
    fail(ErrorKind::io, "'", path, "' is too large for this process: ", status.st_size, " bytes");
  const size_t size = size_t(status.st_size);
  // Private: some network and user-space file systems refuse shared maps.
  void* map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (map == MAP_FAILED) fail(ErrorKind::io, "'", path, "' cannot be mapped: ", reason(errno));
  *kept = std::exchange(file.value, -1);
  return {static_cast<const std::byte*>(map), size};
}

// A file that is gone or unreadable has changed.
FileState state_of(int descriptor) {
  struct stat status;
  if (descriptor < 0) return {};
  if (fstat(descriptor, &status) != 0) return {-1};
#ifdef __APPLE__
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return {int64_t(status.st_size), int64_t(time.tv_sec), int64_t(time.tv_nsec)};
}

void close_descriptor(int descriptor) {
  if (descriptor >= 0) close(descriptor);
}

void unmap(Bytes bytes) { munmap(const_cast<std::byte*>(bytes.data()), bytes.size()); }

size_t page_size() { return size_t(sysconf(_SC_PAGESIZE)); }

void advise_will_need(PageRange range) { madvise(range.begin, range.size, MADV_WILLNEED); }

// Pages of a file map come back from the file when they are read again.
void advise_release(PageRange range) { madvise(range.begin, range.size, MADV_DONTNEED); }

#endif

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  // The system would silently open what stands before the zero byte.
  if (path.find('\0') != std::string::npos)
    fail(ErrorKind::io, "the path '", path.substr(0, path.find('\0')),
         "...' cannot be opened: it holds a zero byte");
  path_ = path;
  bytes_ = map_file(path, &descriptor_);
  state_ = state_of(descriptor_);
  guard_ = std::make_unique<MapGuard>(bytes_);
}

MappedFile::~MappedFile() {
  guard_.reset();  // before the range may become someone else's
  if (!bytes_.empty()) unmap(bytes_);
  close_descriptor(descriptor_);
}

void MappedFile::require_unchanged() const {
  if (guard_->lost() || state_of(descriptor_) != state_)
    fail(ErrorKind::io, "'", path_,
         "' was shortened or written to while it was in use; load it again");
}

void MappedFile::will_need(std::span<const std::byte> part) const {
  const PageRange range = pages_of(part, page_size(), true);
  if (range.size) advise_will_need(range);
}

// Inward: the neighbours of `part` on its first and last page may be in use.
void MappedFile::release(std::span<const std::byte> part) const {
  const PageRange range = pages_of(part, page_size(), false);
  if (range.size) advise_release(range);
}

}  // namespace pyllamacpp
