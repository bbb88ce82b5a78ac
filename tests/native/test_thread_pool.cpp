// The thread pool: every thread runs once per task, barriers part what is before from what is
// after, and a pool ends whatever it was doing last. Run under the thread sanitizer too: the
// counters are plain integers on purpose, so that a missing happens-before is a race.
#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"

namespace {

using namespace pyllamacpp;

constexpr int kMost = 5;

void test_every_thread_runs_once() {
  for (int size = 1; size <= kMost; ++size) {
    ThreadPool pool(size);
    CHECK(pool.size() == size);
    for (int round = 0; round < 20; ++round)
      for (int n = 1; n <= size; ++n) {
        std::vector<int> runs(kMost);
        std::vector<std::thread::id> ids(kMost);
        pool.run(n, [&](int thread) {
          ++runs[size_t(thread)];
          ids[size_t(thread)] = std::this_thread::get_id();
        });
        for (int i = 0; i < kMost; ++i) CHECK(runs[size_t(i)] == (i < n ? 1 : 0));
        CHECK(ids[0] == std::this_thread::get_id());
        std::sort(ids.begin(), ids.begin() + n);
        CHECK(std::unique(ids.begin(), ids.begin() + n) == ids.begin() + n);
      }
  }
}

// What a task writes is seen by the caller and by the next task, without atomics.
void test_results_are_seen() {
  ThreadPool pool(kMost);
  std::vector<int> values(kMost);
  for (int round = 0; round < 3000; ++round) {
    const int n = round % kMost + 1;
    pool.run(n, [&](int thread) { ++values[size_t((thread + round) % n)]; });
    if (round % 7 == 0) ++values[0];
  }
  const int runs = 3000 / kMost * (1 + 2 + 3 + 4 + 5);
  CHECK(std::accumulate(values.begin(), values.end(), 0) == runs + (3000 + 6) / 7);
}

// After a barrier every thread sees what all others wrote before it.
void test_barriers() {
  for (int size = 1; size <= kMost; ++size) {
    ThreadPool pool(size);
    for (int n = 1; n <= size; ++n) {
      std::vector<int> written(size_t(n), 0), wrong(size_t(n), 0);
      pool.run(n, [&](int thread) {
        for (int step = 1; step <= 150; ++step) {
          written[size_t(thread)] = step;
          pool.barrier();
          for (int i = 0; i < n; ++i) wrong[size_t(thread)] += written[size_t(i)] != step;
          pool.barrier();
        }
      });
      CHECK(std::accumulate(wrong.begin(), wrong.end(), 0) == 0);
    }
  }
}

// A thread that comes late finds the others waiting, asleep by then.
void test_slow_threads() {
  ThreadPool pool(3);
  const auto nap = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  std::vector<int> values(3);
  for (int late = 0; late < 3; ++late)
    for (int round = 0; round < 5; ++round) {
      pool.run(3, [&](int thread) {
        if (thread == late) nap();
        values[size_t(thread)] = 10 * late + round;
        pool.barrier();
        for (int v : values) CHECK(v == 10 * late + round);
        if (thread == (late + 1) % 3) nap();
      });
      if (round == 2) nap();  // all workers asleep
    }
}

void test_destruction() {
  for (int round = 0; round < 200; ++round) {
    ThreadPool idle(round % kMost + 1);  // workers may not have started yet
  }
  for (int round = 0; round < 100; ++round) {
    const auto pool = std::make_unique<ThreadPool>(3);
    int ran[3] = {};
    pool->run(round % 3 + 1, [&](int thread) { ran[thread] = 1; });
    CHECK(ran[0] + ran[1] + ran[2] == round % 3 + 1);
    if (round % 25 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // asleep
  }
}

// Pools of different owners do not know of each other.
void test_pools_side_by_side() {
  std::vector<int> sums(3);
  std::vector<std::thread> owners;
  for (size_t owner = 0; owner < sums.size(); ++owner)
    owners.emplace_back([&, owner] {
      ThreadPool pool(2);
      int parts[2] = {};
      for (int round = 0; round < 300; ++round)
        pool.run(2, [&](int thread) { parts[thread] += thread + 1; });
      sums[owner] = parts[0] + parts[1];
    });
  for (std::thread& owner : owners) owner.join();
  for (int sum : sums) CHECK(sum == 900);
}

// A pool may be used by one thread after another.
void test_a_change_of_caller() {
  ThreadPool pool(2);
  int parts[2] = {};
  for (int round = 0; round < 20; ++round)
    std::thread([&] { pool.run(2, [&](int thread) { ++parts[thread]; }); }).join();
  CHECK(parts[0] == 20 && parts[1] == 20);
}

void test_default_thread_count() {
  const int n = default_thread_count();
  CHECK(n >= 1);
  const int logical = int(std::thread::hardware_concurrency());
  CHECK(logical == 0 || n <= logical);
}

}  // namespace

int main() {
  test_every_thread_runs_once();
  test_results_are_seen();
  test_barriers();
  test_slow_threads();
  test_destruction();
  test_pools_side_by_side();
  test_a_change_of_caller();
  test_default_thread_count();
  return check_result();
}
