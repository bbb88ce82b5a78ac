#include "base/thread_pool.h"

#include <system_error>

#include "base/error.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace pyllamacpp {

namespace {

inline void pause() {
#if defined(_MSC_VER) && defined(_M_X64)
  _mm_pause();
#elif defined(_MSC_VER)
  __yield();
#elif defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// About 50 microseconds: longer than the gaps inside a forward pass, shorter than a time slice.
constexpr int kSpins = 1500;
// Then a thread lets others run, for some 10 milliseconds if there are none. Who is waited for has
// lost its core to somebody: asleep meanwhile, this thread would often be woken onto that same
// core.
constexpr int kYields = 20000;

// Returns when `value` is no longer `old`.
template <class T>
void wait_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins + kYields; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    if (i < kSpins)
      pause();
    else
      std::this_thread::yield();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  try {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    const size_t started = workers_.size();
    join();
    fail(ErrorKind::memory, "the system refused to start thread ", started + 2, " of ", n_threads);
  }
}

ThreadPool::~ThreadPool() { join(); }

void ThreadPool::join() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::dispatch(int n, Call call, const void* task) {
  call_ = call;
  task_ = task;
  active_ = n;
  if (n > 1) {
    running_.store(int32_t(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }
  call(task, 0);
  if (n > 1)
    for (int32_t left; (left = running_.load(std::memory_order_acquire)) != 0;)
      wait_change(running_, left);
}

void ThreadPool::work(int thread) {
  for (uint32_t seen = 0;;) {
    wait_change(epoch_, seen);
    ++seen;
    if (stop_) return;
    if (thread < active_) call_(task_, thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

void ThreadPool::barrier() {
  if (active_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == active_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_change(phase_, phase);
  }
}

}  // namespace pyllamacpp
