#include "core/thread_pool.h"

namespace edgeinfer {
namespace {

// Longer than what lies between two tokens, short enough that an idle model costs nothing.
constexpr std::chrono::microseconds kIdleSpin(80);

constexpr uint64_t kFieldBits = 24;
constexpr uint64_t kFieldMask = (uint64_t{1} << kFieldBits) - 1;

constexpr uint64_t pack_share(uint64_t operation, uint64_t begin, uint64_t end) {
  return operation << (2 * kFieldBits) | begin << kFieldBits | end;
}

}  // namespace

// Takes a chunk of the victim's share: its owner from the front, a thief from the back.
bool Team::take(int victim, int64_t n, int64_t chunk, int64_t& begin, int64_t& end) {
  const uint64_t chunks = static_cast<uint64_t>((n + chunk - 1) / chunk);
  const auto size = static_cast<uint64_t>(size_), who = static_cast<uint64_t>(victim);
  const uint64_t operation = operation_ & 0xffff;
  const bool front = victim == index_;
  std::atomic<uint64_t>& share = pool_.workers_[victim].share;
  uint64_t state = share.load(std::memory_order_relaxed);
  for (;;) {
    const auto lead = static_cast<int16_t>((state >> (2 * kFieldBits)) - operation);
    if (lead > 0) return false;  // the others are past this operation
    uint64_t first = state >> kFieldBits & kFieldMask, last = state & kFieldMask;
    if (lead < 0) {  // nobody has touched this share in this operation yet
      first = chunks * who / size;
      last = chunks * (who + 1) / size;
    }
    if (first == last) return false;
    const uint64_t next =
        front ? pack_share(operation, first + 1, last) : pack_share(operation, first, last - 1);
    if (!share.compare_exchange_weak(state, next, std::memory_order_relaxed)) continue;
    begin = static_cast<int64_t>(front ? first : last - 1) * chunk;
    end = std::min(n, begin + chunk);
    return true;
  }
}

// The store is sequentially consistent because notify looks for sleepers after it.
void Team::publish(uint32_t operations) {
  baton_ = false;
  pool_.phase_.store(operations, std::memory_order_seq_cst);
  pool_.phase_.notify_all();
}

ThreadPool::ThreadPool(int threads)
    : size_(std::max(threads, 1)), workers_(std::make_unique<Worker[]>(size_)) {
  for (int i = 1; i < size_; ++i) threads_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  for (int i = 1; i < size_; ++i) {
    workers_[i].calls.fetch_add(1, std::memory_order_seq_cst);
    workers_[i].calls.notify_one();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::open() {
  if (team_size_ == 1) return;
  for (int i = 0; i < size_; ++i) {
    workers_[i].share.store(0, std::memory_order_relaxed);
  }
  phase_.store(0, std::memory_order_relaxed);
  inside_.store(0, std::memory_order_release);
  for (int i = 1; i < team_size_; ++i) {
    workers_[i].calls.fetch_add(1, std::memory_order_seq_cst);
    workers_[i].calls.notify_one();
  }
}

void ThreadPool::close(Team& team) {
  slept_ = 0;
  if (team_size_ == 1) return;
  if (!team.baton_) team.wait(team.operation_, [] {});
  inside_.fetch_or(kClosed, std::memory_order_acq_rel);
  workers_[0].mates.wait(inside_, [](uint32_t inside) { return inside == kClosed; }, [] {});
  Waiter::Clock::duration slept{};
  for (int i = 0; i < team_size_; ++i) slept += workers_[i].mates.take_slept();
  slept_ = std::chrono::duration<double>(slept).count() / (team_size_ - 1);
}

// A region that has been closed must not be entered: its caller is gone.
bool ThreadPool::enter() {
  uint32_t inside = inside_.load(std::memory_order_relaxed);
  while (!(inside & kClosed))
    if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void ThreadPool::work(int index) {
  Worker& self = workers_[index];
  Waiter idle(kIdleSpin, kIdleSpin);
  uint32_t seen = 0;
  for (;;) {
    idle.wait(self.calls, [seen](uint32_t calls) { return calls != seen; }, [] {});
    seen = self.calls.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!enter()) continue;
    if (index < team_size_) {
      Team team(*this, index, team_size_);
      call_(context_, team);
      if (team.baton_) team.publish(team.operation_);
    }
    if (inside_.fetch_sub(1, std::memory_order_seq_cst) - 1 == kClosed) inside_.notify_all();
  }
}

}  // namespace edgeinfer
