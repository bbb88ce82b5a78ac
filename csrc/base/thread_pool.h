// A fixed set of threads that run one task together. Threads spin briefly for the next task, then
// yield to others for a while and then sleep, so that the regions of one forward pass start within
// a microsecond, a busy machine slows it by its share, and an idle pool costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace pyllamacpp {

// min(physical cores, CPU affinity, container CPU quota), at least 1.
int default_thread_count();

class ThreadPool {
 public:
  // `n_threads` counts the calling thread; 1 makes no thread. Throws Error(memory) when the
  // system refuses a thread.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return int(workers_.size()) + 1; }

  // Runs task(thread) with thread = 0 .. n - 1 on n threads, the caller being 0, and returns when
  // all are done. n is at most size(). The task must not throw. One caller at a time.
  template <class Task>
  void run(int n, const Task& task) {
    dispatch(n, [](const void* t, int thread) { (*static_cast<const Task*>(t))(thread); }, &task);
  }

  // Inside a task: returns when all of its threads have arrived.
  void barrier();

 private:
  using Call = void (*)(const void* task, int thread);
  void dispatch(int n, Call call, const void* task);
  void work(int thread);
  void join();

  std::vector<std::thread> workers_;
  Call call_ = nullptr;
  const void* task_ = nullptr;
  int active_ = 1;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> epoch_ = 0;   // counts tasks
  alignas(64) std::atomic<int32_t> running_ = 0;  // workers that have not finished the task
  alignas(64) std::atomic<int32_t> arrived_ = 0;  // threads waiting at the barrier
  alignas(64) std::atomic<uint32_t> phase_ = 0;   // counts barriers
};

}  // namespace pyllamacpp
