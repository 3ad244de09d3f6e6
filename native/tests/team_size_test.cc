// The team's size, found on simulated machines whose best answer is known.
#include "core/team_size.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <initializer_list>

using namespace edgeinfer;

namespace {

/// A machine on which a step takes `alone` seconds by one thread.
struct Machine {
  double alone = 0.01;
  double cores_that_help = 100;  // more read memory no faster
  int busy_cores = 0;            // held by other processes
  int cores = 2;

  /// A thread that shares its core keeps the others waiting.
  TeamSize::Step step(int threads) const {
    const double even = alone / std::min<double>(threads, cores_that_help);
    const bool crowded = threads > cores - busy_cores && threads > 1;
    const double seconds = crowded ? 2.2 * alone : even;
    return {0, seconds, crowded ? 0.5 * seconds : 0, 1, 0};
  }
};

/// Runs a team for some seconds of generating.
struct Run {
  TeamSize size;
  double now = 0;
  int64_t positions = 0;
  double steps = 0;

  explicit Run(int most) : size(most) {}

  void on(const Machine& machine, double seconds) {
    steps = 0;
    for (const double end = now + seconds; now < end; ++steps) {
      TeamSize::Step step = machine.step(size.threads());
      step.end = now += step.seconds;
      step.positions = ++positions;
      size.observe(step);
    }
  }
  /// Steps of the last run per second, as a share of what `threads` would have done.
  double share(const Machine& machine, int threads, double seconds) const {
    return steps / (seconds / machine.step(threads).seconds);
  }
};

}  // namespace

TEST_CASE("a calm pair of cores is used without trials") {
  const Machine calm;
  Run run(2);
  run.on(calm, 5);
  CHECK(run.share(calm, 2, 5) > 0.999);
}

TEST_CASE("beside a busy process the team shrinks at once, and grows again when it is gone") {
  for (const double alone : {0.0025, 0.02, 0.2}) {
    CAPTURE(alone);
    const Machine calm{.alone = alone}, busy{.alone = alone, .busy_cores = 1};
    Run run(2);
    run.on(calm, 5);
    run.on(busy, 2);  // notices
    run.on(busy, 20);
    CHECK(run.size.threads() == 1);
    CHECK(run.share(busy, 1, 20) > 0.95);
    run.on(calm, 20);
    CHECK(run.size.threads() == 2);
    run.on(calm, 5);
    CHECK(run.share(calm, 2, 5) > 0.99);
  }
}

TEST_CASE("one busy core of eight costs one thread") {
  const Machine busy{.busy_cores = 1, .cores = 8};
  Run run(8);
  run.on(busy, 2);
  run.on(busy, 20);
  CHECK(run.share(busy, 7, 20) > 0.95);
}

TEST_CASE("cores that add nothing are left alone") {
  const Machine saturated{.cores_that_help = 3, .cores = 8};
  Run run(8);
  run.on(saturated, 60);
  run.on(saturated, 20);
  CHECK(run.size.threads() <= 4);
  CHECK(run.share(saturated, 8, 20) > 0.95);
}

TEST_CASE("steps of unequal work are not compared") {
  const Machine busy{.busy_cores = 1};
  Run run(2);
  for (int i = 0; i < 1000; ++i) {  // a new conversation at every step
    TeamSize::Step step = busy.step(run.size.threads());
    step.end = run.now += step.seconds;
    step.positions = i % 2 * 1000;
    run.size.observe(step);
  }
  CHECK(run.size.threads() == 2);
}
