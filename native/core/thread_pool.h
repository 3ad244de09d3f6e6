// ThreadPool: a team of threads that passes through one region per step of the model.
//
// A decode step has some hundred short operations, so waiting between two of them must cost
// tens of nanoseconds: threads are woken once per region, run the same code, and spin where
// they wait. Between regions they spin for a moment (the next token usually follows at once)
// and then sleep.
//
// An operation is over when its pieces are done, not when its threads have come: a thread that
// the system took away between two pieces, or that has not even woken up, holds nobody up and
// later skips what the others did. Whoever finishes the last piece carries the baton. It alone
// runs the operations of a single piece that follow, and opens the next one that has many, where
// the others wait already. So a chain of small serial operations costs one wait.
//
// The pieces of an operation are split into one contiguous range per thread, which keeps each
// thread's weights one linear stream; a thread that is done helps the others out from the tails.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/waiter.h"

namespace edgeinfer {

class ThreadPool;

/// What one thread sees of the team inside a region.
class Team {
 public:
  int index() const { return index_; }
  int size() const { return size_; }

  /// Calls f(begin, end) for disjoint ranges that cover [0, n), each at most `chunk` long,
  /// spread over the team, after everything that earlier calls did. Every thread must make the
  /// same calls. It may return before the work is done: what later calls do, and the end of
  /// the region, come after it. A thread that waits for earlier work calls idle() meanwhile.
  template <class F, class Idle>
  void for_each(int64_t n, int64_t chunk, F&& f, Idle&& idle);
  template <class F>
  void for_each(int64_t n, int64_t chunk, F&& f) {
    for_each(n, chunk, f, [] {});
  }

  /// The part of [0, n) with which this thread begins in for_each(n, chunk, ...).
  std::pair<int64_t, int64_t> own_range(int64_t n, int64_t chunk) const {
    const int64_t chunks = (n + chunk - 1) / chunk;
    return {chunks * index_ / size_ * chunk, std::min(n, chunks * (index_ + 1) / size_ * chunk)};
  }

 private:
  friend class ThreadPool;
  Team(ThreadPool& pool, int index, int size)
      : pool_(pool), index_(index), size_(size), baton_(index == 0) {}

  bool take(int victim, int64_t n, int64_t chunk, int64_t& begin, int64_t& end);
  void publish(uint32_t operations);
  template <class Idle>
  void wait(uint32_t operations, Idle&& idle);

  ThreadPool& pool_;
  const int index_;
  const int size_;
  bool baton_;              // all is done, and only this thread knows
  uint32_t operation_ = 1;  // counts for_each calls after the region's opening, the first
};

class ThreadPool {
 public:
  /// A team of up to `threads` (at least 1), the caller of run() being one of them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  /// Runs f(Team&) on a team of `threads` (at most size()) and returns when all is done. f must
  /// not throw. Not reentrant; the caller serialises.
  template <class F>
  void run(int threads, F&& f) {
    call_ = [](void* context, Team& team) {
      (*static_cast<std::remove_reference_t<F>*>(context))(team);
    };
    context_ = &f;
    team_size_ = std::clamp(threads, 1, size_);
    open();
    Team team(*this, 0, team_size_);
    call_(context_, team);
    close(team);
  }
  template <class F>
  void run(F&& f) {
    run(size_, f);
  }

  /// The seconds of the last region in which a thread slept because a mate had been taken away
  /// from it, averaged over the threads that can wait for one.
  double slept() const { return slept_; }

 private:
  friend class Team;

  struct alignas(64) Worker {
    // Its share of an operation: operation (16 bits), begin and end in chunks (24 each). The
    // operation number lets whoever comes first, owner or thief, set the range up.
    std::atomic<uint64_t> share{0};
    Waiter mates{std::chrono::microseconds(1), std::chrono::microseconds(40)};
    alignas(64) std::atomic<uint32_t> calls{0};  // regions that it was called to
  };

  void open();
  void close(Team& team);
  void work(int index);
  bool enter();

  static constexpr uint32_t kClosed = 1u << 31;

  const int size_;
  std::unique_ptr<Worker[]> workers_;
  std::vector<std::thread> threads_;
  void (*call_)(void*, Team&) = nullptr;
  void* context_ = nullptr;
  int team_size_ = 1;
  double slept_ = 0;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> inside_{kClosed};  // workers in the region, or kClosed
  alignas(64) std::atomic<int64_t> done_{0};           // pieces of the current operation
  alignas(64) std::atomic<uint32_t> phase_{0};         // operations that are known to be done
};

template <class F, class Idle>
void Team::for_each(int64_t n, int64_t chunk, F&& f, Idle&& idle) {
  ++operation_;
  if (n <= chunk || size_ == 1) {
    if (!baton_) return;
    for (int64_t begin = 0; begin < n; begin += chunk) f(begin, std::min(n, begin + chunk));
    return;
  }
  if (baton_)
    publish(operation_ - 1);
  else
    wait(operation_ - 1, idle);
  int64_t begin, end, done = 0;
  for (int i = 0; i < size_; ++i) {
    const int victim = (index_ + i) % size_;
    for (; take(victim, n, chunk, begin, end); ++done) f(begin, end);
  }
  if (done == 0) return;
  baton_ = pool_.done_.fetch_add(done, std::memory_order_acq_rel) + done == (n + chunk - 1) / chunk;
  if (baton_) pool_.done_.store(0, std::memory_order_relaxed);
}

template <class Idle>
void Team::wait(uint32_t operations, Idle&& idle) {
  const auto ready = [operations](uint32_t phase) { return phase >= operations; };
  pool_.workers_[index_].mates.wait(pool_.phase_, ready, idle);
}

}  // namespace edgeinfer
