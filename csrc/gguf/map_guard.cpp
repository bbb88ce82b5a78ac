#include "gguf/map_guard.h"

#ifdef _WIN32

namespace pyllamacpp {

MapGuard::MapGuard(std::span<const std::byte>) {}
MapGuard::~MapGuard() = default;
bool MapGuard::lost() const { return false; }

}  // namespace pyllamacpp

#else

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>

namespace pyllamacpp {

namespace {

// What the handler may touch: no lock, no memory of its own. A slot without an end is free; ranges
// beyond so many go unguarded.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
};
constexpr int kSlots = 1024;
Slot slots[kSlots];
std::mutex slots_mutex;  // for those who take and free slots

uintptr_t page_size;
struct sigaction previous;

bool replace_page(uintptr_t address) {
  for (Slot& slot : slots) {
    const uintptr_t end = slot.end.load();
    if (address < slot.begin.load() || address >= end) continue;
    // The rest of the map too: what is beyond a lost page is mostly lost as well.
    const uintptr_t page = address / page_size * page_size;
    void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) return false;
    slot.lost = true;
    return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const bool ours = replace_page(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved;
  if (ours) return;
  if (previous.sa_flags & SA_SIGINFO)
    previous.sa_sigaction(signal, info, context);
  else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)
    sigaction(SIGBUS, &previous, nullptr);  // the access faults again, without us
  else
    previous.sa_handler(signal);
}

void install() {
  static const bool once = [] {
    page_size = uintptr_t(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &previous) == 0;
  }();
  (void)once;
}

}  // namespace

MapGuard::MapGuard(std::span<const std::byte> range) {
  if (range.empty()) return;
  const std::lock_guard lock(slots_mutex);
  install();
  for (int i = 0; i < kSlots && slot_ < 0; ++i)
    if (slots[i].end == 0) slot_ = i;
  if (slot_ < 0) return;
  Slot& slot = slots[slot_];
  const uintptr_t begin = reinterpret_cast<uintptr_t>(range.data());
  slot.lost = false;
  slot.begin = begin;
  slot.end = begin + range.size();
}

MapGuard::~MapGuard() {
  if (slot_ < 0) return;
  const std::lock_guard lock(slots_mutex);
  slots[slot_].end = 0;
}

bool MapGuard::lost() const { return slot_ >= 0 && slots[slot_].lost; }

}  // namespace pyllamacpp

#endif
