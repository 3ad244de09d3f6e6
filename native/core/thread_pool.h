// ThreadPool: a team of threads that passes through one region per step of the model.
//
// Waking a thread costs tens of microseconds, a spin barrier tens of nanoseconds, and a
// decode step has hundreds of barriers. So threads are woken once per step, run the same
// code, and meet at spin barriers; between steps they spin for a moment (the next token
// usually follows at once) and then sleep on a futex. On a busy machine barriers sleep too.
//
// Work is split into one contiguous range per thread, which keeps each thread's weights one
// linear stream, and taken in chunks, so that a thread held up by another process is helped
// out from the tail of its range.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace edgeinfer {

class ThreadPool;

/// What one thread sees of the team inside a region.
class Team {
 public:
  int index() const { return index_; }
  int size() const;

  /// Returns when all threads of the team have arrived.
  void barrier();

  /// Calls f(begin, end) for disjoint ranges that cover [0, n), each at most `chunk` long,
  /// spread over the team; returns when all of [0, n) is done. Every thread must call it.
  template <class F>
  void for_each(int64_t n, int64_t chunk, F&& f) {
    ++operation_;
    int64_t begin, end;
    for (int i = 0; i < size(); ++i) {
      const int victim = (index_ + i) % size();
      while (take(victim, n, chunk, victim == index_, begin, end)) f(begin, end);
    }
    barrier();
  }

 private:
  friend class ThreadPool;
  Team(ThreadPool& pool, int index) : pool_(pool), index_(index) {}
  bool take(int victim, int64_t n, int64_t chunk, bool front, int64_t& begin, int64_t& end);

  ThreadPool& pool_;
  int index_;
  uint32_t operation_ = 0;  // counts for_each calls; all threads agree on it
};

class ThreadPool {
 public:
  /// A team of `threads` (at least 1), the caller of run() being one of them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  /// Runs f(Team&) on every thread of the team and returns when all are done. f must not
  /// throw. Not reentrant; the caller serialises.
  template <class F>
  void run(F&& f) {
    call_ = [](void* context, Team& team) {
      (*static_cast<std::remove_reference_t<F>*>(context))(team);
    };
    context_ = &f;
    start();
    Team team(*this, 0);
    call_(context_, team);
    team.barrier();
  }

 private:
  friend class Team;

  // A thread's share of an operation: operation (16 bits), begin and end in chunks (24 each).
  // The operation number lets whoever comes first, owner or thief, set the range up.
  struct alignas(64) Share {
    std::atomic<uint64_t> state{0};
    int spins = 0;  // how long this thread waits at a barrier before it sleeps
  };

  void start();
  void work(int index);

  const int size_;
  std::unique_ptr<Share[]> shares_;
  std::vector<std::thread> workers_;
  void (*call_)(void*, Team&) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

inline int Team::size() const { return pool_.size_; }

}  // namespace edgeinfer
