// How many threads pay: no more than physical cores (two hyper-threads share one set of vector
// units), no more than this process may use, no more than a container's quota pays for.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "base/thread_pool.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>

#include <vector>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sched.h>
#endif

namespace pyllamacpp {

namespace {

#if defined(__linux__)
// Distinct (package, core) pairs among the CPUs of the affinity mask; 0 when sysfs does not tell.
int allowed_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = 0, core = 0;
    if (!(std::ifstream(folder + "physical_package_id") >> package) ||
        !(std::ifstream(folder + "core_id") >> core))
      return CPU_COUNT(&mask);
    cores.emplace(package, core);
  }
  return int(cores.size());
}

// CPUs' worth of time that the control group allows, rounded up; 0: unlimited. The limits of a
// container show at the root of its own mount: cgroup v2 cpu.max, v1 cpu.cfs_*_us.
int quota_cpus() {
  double quota = 0, period = 0;
  std::string word;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> word >> period) {
    if (word == "max") return 0;
    std::istringstream(word) >> quota;
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota <= 0 || period <= 0) return 0;
  return std::max(1, int(quota / period + 0.999));
}
#elif defined(__APPLE__)
int allowed_cores() {
  int cores = 0;
  size_t size = sizeof cores;
  // Performance cores only: a static share on an efficiency core holds the others up.
  if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) == 0) return cores;
  size = sizeof cores;
  return sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) == 0 ? cores : 0;
}
int quota_cpus() { return 0; }
#elif defined(_WIN32)
int allowed_cores() {
  DWORD_PTR process = 0, system = 0;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &process, &system)) return 0;
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> info(bytes / sizeof info[0] + 1);
  bytes = DWORD(info.size() * sizeof info[0]);
  if (!GetLogicalProcessorInformation(info.data(), &bytes)) return 0;
  int cores = 0;
  for (size_t i = 0; i < bytes / sizeof info[0]; ++i)
    cores += info[i].Relationship == RelationProcessorCore && (info[i].ProcessorMask & process);
  return cores;
}
int quota_cpus() { return 0; }
#else
int allowed_cores() { return 0; }
int quota_cpus() { return 0; }
#endif

}  // namespace

int default_thread_count() {
  int n = allowed_cores();
  if (n == 0) n = int(std::thread::hardware_concurrency());
  if (const int quota = quota_cpus(); quota > 0) n = std::min(n, quota);
  return std::max(1, n);
}

}  // namespace pyllamacpp
