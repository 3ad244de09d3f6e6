// What the machine can do at most: the speed of reading memory and of integer dot products.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "core/memory_region.h"
#include "kernels/dispatch.h"

namespace nb = nanobind;

namespace edgeinfer {
namespace {

using Clock = std::chrono::steady_clock;

/// Runs f(thread) on a team again and again for `seconds`; returns the seconds of each pass, from
/// the start that all share to the end of the last thread. The first pass, which warms up, is
/// left out.
template <class F>
std::vector<double> time_passes(int threads, double seconds, const F& f) {
  std::vector<double> passes;
  std::atomic<bool> more{true};
  std::barrier together(threads);
  const auto work = [&](int thread) {
    f(thread);
    together.arrive_and_wait();
    const Clock::time_point start = Clock::now();
    while (more) {
      together.arrive_and_wait();
      const Clock::time_point begin = Clock::now();
      f(thread);
      together.arrive_and_wait();
      if (thread == 0) {
        const Clock::time_point end = Clock::now();
        passes.push_back(std::chrono::duration<double>(end - begin).count());
        more = std::chrono::duration<double>(end - start).count() < seconds;
      }
      together.arrive_and_wait();
    }
  };
  std::vector<std::thread> mates;
  for (int thread = 1; thread < threads; ++thread) mates.emplace_back(work, thread);
  work(0);
  for (std::thread& mate : mates) mate.join();
  return passes;
}

void check_threads(int threads) {
  if (threads < 1 || threads > 1024) throw nb::value_error("threads must be 1 to 1024");
}

std::vector<double> stream_read(const std::string& isa, int64_t bytes, int threads,
                                double seconds) {
  check_threads(threads);
  constexpr int64_t kUnit = 4096;
  const int64_t share = bytes / threads / kUnit * kUnit;
  if (share < kUnit) throw nb::value_error("bytes must be at least 4096 a thread");
  const KernelSet& kernels = find_kernels(isa);
  const MemoryRegion region(static_cast<size_t>(share * threads), MemoryRegion::Pages::kHuge);
  std::vector<double> passes;
  {
    const nb::gil_scoped_release unlocked;
    std::atomic<int32_t> sum{0};
    std::vector<char> written(static_cast<size_t>(threads), false);
    passes = time_passes(threads, seconds, [&](int thread) {
      uint8_t* part = region.data() + thread * share;
      if (!std::exchange(written[static_cast<size_t>(thread)], true)) {
        std::fill_n(part, share, uint8_t{1});  // the owner touches its pages first
      }
      sum += kernels.read_all(part, share);
    });
  }
  for (double& pass : passes) pass = static_cast<double>(share * threads) / pass;
  return passes;
}

std::vector<double> int8_peak(const std::string& isa, int threads, double seconds) {
  check_threads(threads);
  constexpr int kRounds = 512;  // a millisecond or so a pass
  const KernelSet& kernels = find_kernels(isa);
  alignas(64) int8_t activations[4096];
  for (size_t i = 0; i < sizeof(activations); ++i) {
    activations[i] = static_cast<int8_t>(i * 37 % 255 - 127);
  }
  std::vector<double> passes;
  std::atomic<int64_t> macs{0};  // of all threads in the last pass
  {
    const nb::gil_scoped_release unlocked;
    std::atomic<int32_t> sum{0};
    passes = time_passes(threads, seconds, [&](int thread) {
      int64_t done = 0;
      for (int i = 0; i < kRounds; ++i) {
        sum += kernels.dot_all(activations, sizeof(activations), &done);
      }
      if (thread == 0) macs = done * threads;
    });
  }
  for (double& pass : passes) pass = static_cast<double>(macs) / pass;
  return passes;
}

}  // namespace

void bind_ceilings(nb::module_& m) {
  using namespace nb::literals;
  m.def("stream_read", &stream_read, "isa"_a, "bytes"_a, "threads"_a, "seconds"_a,
        "Reads a region of 2 MB pages, each thread its share: bytes per second of each pass.");
  m.def("int8_peak", &int8_peak, "isa"_a, "threads"_a, "seconds"_a,
        "Integer dot products of operands in registers: multiply-adds per second of each pass.");
}

}  // namespace edgeinfer
