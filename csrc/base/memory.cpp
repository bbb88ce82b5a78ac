#include "base/memory.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#else
#include <sys/resource.h>
#endif

namespace pyllamacpp {

#if defined(_WIN32)

uint64_t available_memory(const std::string&) {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? std::min(status.ullAvailPhys, status.ullAvailPageFile)
                                       : UINT64_MAX;
}

#elif defined(__APPLE__)

uint64_t available_memory(const std::string&) {
  vm_statistics64_data_t stats{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  vm_size_t page = 0;
  if (host_page_size(mach_host_self(), &page) != KERN_SUCCESS ||
      host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&stats),
                        &count) != KERN_SUCCESS)
    return UINT64_MAX;
  return (uint64_t(stats.free_count) + stats.inactive_count + stats.purgeable_count) * page;
}

#else

namespace {

// The number after `name` in lines of "name: 123 kB" or "name 123"; UINT64_MAX when absent.
uint64_t field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    uint64_t value = 0;
    if (words >> first >> value && first == name) return value;
  }
  return UINT64_MAX;
}

// A file that holds one number; "max" and an absent file are no limit.
uint64_t number(const std::string& path) {
  uint64_t value = 0;
  return std::ifstream(path) >> value ? value : UINT64_MAX;
}

// Room in one control group: its limit less what it holds and cannot drop. File pages that nobody
// used lately count as used until they are wanted elsewhere.
uint64_t room(const std::string& folder, const char* limit_file, const char* used_file,
              const char* droppable) {
  const uint64_t limit = number(folder + limit_file), used = number(folder + used_file);
  if (limit == UINT64_MAX || used == UINT64_MAX) return UINT64_MAX;
  const uint64_t files = field(folder + "/memory.stat", droppable);
  const uint64_t held = files == UINT64_MAX ? used : used - std::min(used, files);
  return limit - std::min(limit, held);
}

// The least room of this process's control groups, each within its parents. Inside a container the
// path may be one of the host: then the mount's own root is the group.
uint64_t control_group_room(const std::string& root) {
  uint64_t least = UINT64_MAX;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string mount = root + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory");
    for (std::string path = line.substr(second + 1);;) {
      const std::string folder = mount + (path == "/" ? "" : path);
      least = std::min(least, v2 ? room(folder, "/memory.max", "/memory.current", "inactive_file")
                                 : room(folder, "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                        "total_inactive_file"));
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos || path == "/") break;
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
  }
  return least;
}

// The map of a file, stacks and alignment take address space too: a quarter is left to them.
uint64_t address_space_room(const std::string& root) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  const uint64_t used = field(root + "/proc/self/status", "VmSize:");
  if (used == UINT64_MAX) return limit.rlim_cur;
  const uint64_t left = limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, used << 10);
  return left - left / 4;
}

}  // namespace

uint64_t available_memory(const std::string& root) {
  const uint64_t kilobytes = field(root + "/proc/meminfo", "MemAvailable:");
  const uint64_t machine = kilobytes == UINT64_MAX ? UINT64_MAX : kilobytes << 10;
  return std::min({machine, control_group_room(root), address_space_room(root)});
}

#endif

}  // namespace pyllamacpp
