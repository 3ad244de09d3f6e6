// Waiter: how one thread waits for a word of memory to change: it spins, then sleeps.
//
// A mate normally answers within a microsecond, and waking a sleeper takes thirty, so a short
// wait must spin. A mate that stays away longer has lost its core to another process: sleeping
// then lets the system bring it here, spinning only competes with it. So a thread spins less
// after a wait in vain and more after a good one; with five busy processes beside two threads
// that made 30-60 tokens/s out of 2-8.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

namespace edgeinfer {

inline void relax_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // "yield" is over at once on most cores
#endif
}

class Waiter {
 public:
  using Clock = std::chrono::steady_clock;

  /// Spins between `shortest` and `longest`.
  Waiter(Clock::duration shortest, Clock::duration longest)
      : shortest_(shortest), longest_(longest), patience_(longest) {}

  /// Returns once ready(word). While it spins it calls idle(), which should be short. Whoever
  /// changes the word must call its notify.
  template <class Ready, class Idle>
  void wait(std::atomic<uint32_t>& word, Ready&& ready, Idle&& idle) {
    uint32_t value = word.load(std::memory_order_acquire);
    if (ready(value)) return;
    Clock::time_point since{};
    for (uint32_t spins = 1;; ++spins) {
      idle();
      relax_processor();
      value = word.load(std::memory_order_acquire);
      if (ready(value)) break;
      if (spins % kSpinsPerLook != 0) continue;
      const Clock::time_point now = Clock::now();
      if (spins == kSpinsPerLook) since = now;
      if (now - since < patience_) continue;
      word.wait(value, std::memory_order_acquire);
      slept_ += Clock::now() - now;
      patience_ = std::max(patience_ / 2, shortest_);
      if (ready(word.load(std::memory_order_acquire))) return;
      spins = 0;
    }
    patience_ = std::min(patience_ + longest_ / 128, longest_);
  }

  /// Time slept since the last call.
  Clock::duration take_slept() { return std::exchange(slept_, {}); }

 private:
  static constexpr uint32_t kSpinsPerLook = 32;  // reading the clock costs as much as a pause

  Clock::duration shortest_, longest_;
  Clock::duration patience_;
  Clock::duration slept_{};
};

}  // namespace edgeinfer
