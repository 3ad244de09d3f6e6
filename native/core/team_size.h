// TeamSize: how many threads a decode step should use, found while running.
//
// The best team is not a constant: another process may hold a core, so that the whole team waits
// for one thread again and again, and a few cores may read memory as fast as all of them. So
// teams one smaller and one larger are tried for some steps and the faster one is kept: at once
// when the threads had to sleep for a mate, else now and then, so rarely that what trials lose
// is a small share of the time. What a step computes does not depend on the team.
#pragma once

#include <cstdint>

namespace edgeinfer {

class TeamSize {
 public:
  /// Between 1 and `most` threads, `most` to begin with.
  explicit TeamSize(int most) : most_(most), size_(most) {}

  /// The threads of the next step.
  int threads() const { return trial_ ? trial_ : size_; }

  /// A step of threads() threads. Times are in seconds.
  struct Step {
    double end;      // when it ended, on any clock
    double seconds;  // how long it took
    double slept;    // how long its threads slept waiting for each other
    int64_t tokens;
    int64_t positions;  // of the contexts that its tokens read, in sum
  };
  /// Tells of a step. Only steps of about equal work are compared: a jump in tokens or
  /// positions begins anew.
  void observe(const Step& step);

 private:
  struct Steps {
    double count = 0, seconds = 0, slept = 0;
    double mean() const { return seconds / count; }
  };

  void consider(double now);
  void judge(double now);

  const int most_;
  int size_;
  int trial_ = 0;                       // the size on trial, or 0
  bool down_ = false;                   // the direction of the last trial
  int64_t tokens_ = 0, positions_ = 0;  // of the last step
  Steps recent_;                        // at size_; older steps count less and less
  Steps tried_;                         // at trial_
  double next_ = 0;                     // when the next trial may begin
};

}  // namespace edgeinfer
