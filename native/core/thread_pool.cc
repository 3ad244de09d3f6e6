#include "core/thread_pool.h"

namespace edgeinfer {
namespace {

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 50 microseconds of pauses: longer than the gap between two tokens, short enough
// that an idle model costs nothing.
constexpr int kIdleSpins = 1500;
// A barrier is normally passed within a microsecond. If a mate stays away longer, another
// process has its core: sleeping then lets the scheduler bring the mate here, spinning only
// competes with it. So each thread spins less after a wait in vain and more after a good one;
// with five busy processes beside two threads that is 30-60 tokens/s against 2-8.
constexpr int kMostSpins = 1500;
constexpr int kFewestSpins = 50;
constexpr int kSpinGain = 8;

constexpr uint64_t kFieldBits = 24;
constexpr uint64_t kFieldMask = (uint64_t{1} << kFieldBits) - 1;

constexpr uint64_t pack_share(uint64_t operation, uint64_t begin, uint64_t end) {
  return (operation & 0xffff) << (2 * kFieldBits) | begin << kFieldBits | end;
}

}  // namespace

void Team::barrier() {
  ThreadPool& p = pool_;
  const uint32_t phase = p.phase_.load(std::memory_order_relaxed);
  if (p.arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == p.size_) {
    p.arrived_.store(0, std::memory_order_relaxed);
    p.phase_.store(phase + 1, std::memory_order_release);
    p.phase_.notify_all();
    return;
  }
  int& limit = p.shares_[index_].spins;
  for (int spins = 0; spins < limit; ++spins) {
    if (p.phase_.load(std::memory_order_acquire) != phase) {
      limit = std::min(limit + kSpinGain, kMostSpins);
      return;
    }
    cpu_relax();
  }
  limit = std::max(limit / 2, kFewestSpins);
  p.phase_.wait(phase, std::memory_order_acquire);
}

bool Team::take(int victim, int64_t n, int64_t chunk, bool front, int64_t& begin, int64_t& end) {
  const uint64_t chunks = static_cast<uint64_t>((n + chunk - 1) / chunk);
  const auto size = static_cast<uint64_t>(pool_.size_);
  const auto who = static_cast<uint64_t>(victim);
  std::atomic<uint64_t>& share = pool_.shares_[victim].state;
  uint64_t state = share.load(std::memory_order_relaxed);
  for (;;) {
    uint64_t first, last;
    if (state >> (2 * kFieldBits) == (operation_ & 0xffff)) {
      first = state >> kFieldBits & kFieldMask;
      last = state & kFieldMask;
    } else {  // nobody has touched this share in this operation yet
      first = chunks * who / size;
      last = chunks * (who + 1) / size;
    }
    if (first == last) return false;
    const uint64_t next =
        front ? pack_share(operation_, first + 1, last) : pack_share(operation_, first, last - 1);
    if (!share.compare_exchange_weak(state, next, std::memory_order_relaxed)) continue;
    const auto taken = static_cast<int64_t>(front ? first : last - 1);
    begin = taken * chunk;
    end = std::min(n, begin + chunk);
    return true;
  }
}

ThreadPool::ThreadPool(int threads)
    : size_(std::max(threads, 1)), shares_(std::make_unique<Share[]>(size_)) {
  for (int i = 0; i < size_; ++i) shares_[i].spins = kMostSpins;
  for (int i = 1; i < size_; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::start() {
  // A region starts counting operations at 1; 0xffff never occurs in a fresh share.
  for (int i = 0; i < size_; ++i)
    shares_[i].state.store(pack_share(0xffff, 0, 0), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
}

void ThreadPool::work(int index) {
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen && spins < kIdleSpins;
         ++spins)
      cpu_relax();
    epoch_.wait(seen, std::memory_order_acquire);
    ++seen;
    if (stop_.load(std::memory_order_relaxed)) return;
    Team team(*this, index);
    call_(context_, team);
    team.barrier();
  }
}

}  // namespace edgeinfer
