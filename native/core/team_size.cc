#include "core/team_size.h"

#include <algorithm>

namespace edgeinfer {
namespace {

// A busy system hands out time in slices of a few milliseconds: fewer steps than these, or less
// time than several slices, says nothing.
constexpr double kLeastSteps = 3;
constexpr double kLeastSeconds = 0.02;
constexpr double kSurelyEnough = 0.06;  // seconds, however few steps
// Steps older than about this long are forgotten.
constexpr double kMemory = 4;  // times the least

// Positions that a sequence may grow by between two steps that are compared.
constexpr int64_t kLikePositions = 16;

// Sleeping for mates this share of the time is a reason to try a smaller team at once.
constexpr double kMuchSleep = 0.15;
// What trials in vain may cost, as a share of the time, and the shortest time between two.
constexpr double kTrialShare = 0.03;
constexpr double kShortestGap = 0.1;
// What a larger team must take of the time to be worth its threads, and a smaller one may take.
constexpr double kLargerTakes = 0.97, kSmallerTakes = 1.002;

bool enough(double count, double seconds) {
  return (count >= kLeastSteps && seconds >= kLeastSeconds) || seconds >= kSurelyEnough;
}

}  // namespace

void TeamSize::observe(const Step& step) {
  if (most_ == 1) return;
  const int64_t grown = step.positions - positions_;
  if (step.tokens != tokens_ || grown < 0 || grown > kLikePositions * step.tokens) {
    trial_ = 0;
    recent_ = tried_ = {};
  }
  tokens_ = step.tokens;
  positions_ = step.positions;

  Steps& steps = trial_ ? tried_ : recent_;
  steps.count += 1;
  steps.seconds += step.seconds;
  steps.slept += step.slept;
  if (trial_) {
    judge(step.end);
    return;
  }
  if (enough(steps.count / kMemory, steps.seconds / kMemory)) {
    steps = {steps.count / 2, steps.seconds / 2, steps.slept / 2};
  }
  consider(step.end);
}

// Begins a trial if there is a reason for one.
void TeamSize::consider(double now) {
  if (now < next_ || !enough(recent_.count, recent_.seconds)) return;
  const bool crowded = size_ > 1 && recent_.slept > kMuchSleep * recent_.seconds;
  const bool larger = size_ < most_;
  // Two threads beside nobody are faster than one: that need not be tried.
  const bool smaller = size_ > 2;
  if (!crowded && !larger && !smaller) return;
  down_ = crowded || (smaller && (!larger || !down_));
  trial_ = down_ ? size_ - 1 : size_ + 1;
  tried_ = {};
}

// Ends the trial as soon as it is decided.
void TeamSize::judge(double now) {
  if (!enough(tried_.count, tried_.seconds)) return;
  const double before = recent_.mean(), tried = tried_.mean();
  next_ = now + kShortestGap;
  if (tried <= (down_ ? kSmallerTakes : kLargerTakes) * before) {
    size_ = trial_;
    recent_ = tried_;
  } else {
    next_ = now + std::max(kShortestGap, tried_.count * (tried - before) / kTrialShare);
  }
  trial_ = 0;
}

}  // namespace edgeinfer
