// The pool runs every piece once, in order, whichever threads of the team show up.
#include "core/thread_pool.h"

#include <doctest/doctest.h>

#include <random>
#include <thread>
#include <vector>

using namespace edgeinfer;

namespace {

struct Operation {
  int64_t n, chunk;
};

/// Regions of a few operations, many of a single piece or none, with pauses between regions
/// in which the workers fall asleep now and then.
class Regions {
 public:
  std::vector<Operation> next() {
    if (pick(0, 99) == 0) std::this_thread::sleep_for(std::chrono::microseconds(pick(0, 300)));
    std::vector<Operation> operations(static_cast<size_t>(pick(1, 5)));
    for (Operation& o : operations) o = {pick(0, 30), pick(1, 6)};
    return operations;
  }
  int64_t pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

 private:
  std::mt19937_64 random_{1};
};

}  // namespace

TEST_CASE("every piece of every operation runs once, after the operations before it") {
  for (const int threads : {1, 2, 3, 7}) {
    CAPTURE(threads);
    ThreadPool pool(threads);
    Regions regions;
    int64_t wrong = 0;
    for (int region = 0; region < 5000; ++region) {
      const std::vector<Operation> operations = regions.next();
      // Plain integers: an operation that began too early would be a race, and miss a count.
      std::vector<std::vector<int64_t>> runs;
      for (const Operation& o : operations) runs.emplace_back(static_cast<size_t>(o.n));
      std::vector<int64_t> seen(operations.size());

      const auto team_size = static_cast<int>(regions.pick(1, threads));
      pool.run(team_size, [&](Team& team) {
        for (size_t i = 0; i < operations.size(); ++i) {
          team.for_each(operations[i].n, operations[i].chunk, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) ++runs[i][static_cast<size_t>(k)];
          });
          // A single piece: it sums up what all pieces before it left.
          team.for_each(1, 1, [&](int64_t, int64_t) {
            for (const int64_t count : runs[i]) seen[i] += count;
          });
        }
      });

      for (size_t i = 0; i < operations.size(); ++i) {
        wrong += seen[i] != operations[i].n;
        for (const int64_t count : runs[i]) wrong += count != 1;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a team of one calls in order, in chunks") {
  ThreadPool pool(3);
  std::vector<std::pair<int64_t, int64_t>> calls;
  pool.run(1, [&](Team& team) {
    CHECK(team.size() == 1);
    team.for_each(7, 3, [&](int64_t begin, int64_t end) { calls.emplace_back(begin, end); });
  });
  CHECK(calls == std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {3, 6}, {6, 7}});
}

TEST_CASE("own ranges cover everything without overlap") {
  ThreadPool pool(3);
  for (const int64_t n : {1, 2, 3, 10, 11, 64})
    for (const int64_t chunk : {1, 2, 5}) {
      std::vector<std::pair<int64_t, int64_t>> ranges(3);
      for (auto& range : ranges) range = {-1, -1};
      std::atomic<int> entered{0};
      pool.run([&](Team& team) {
        ranges[static_cast<size_t>(team.index())] = team.own_range(n, chunk);
        ++entered;
        while (entered < 3) std::this_thread::yield();  // nobody misses this region
      });
      int64_t end = 0;
      for (const auto& range : ranges) {
        CHECK(range.first == end);
        end = std::max(end, range.second);
      }
      CHECK(end == n);
    }
}
