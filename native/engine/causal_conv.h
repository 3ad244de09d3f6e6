// CausalConv: a short convolution over the tokens of each sequence, channel by channel.
//
// A token's output is a weighted sum of its own and the last conv_taps - 1 inputs. Those from
// before the step are the window of the sequence's running state.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "engine/attention.h"
#include "engine/model_config.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// Rows of a step's tokens, (tokens, channels) with a stride.
struct Channels {
  const float* x;
  int64_t stride;
  int64_t count;
};

class CausalConv {
 public:
  /// All references must outlive it.
  CausalConv(const ModelConfig& config, const KernelSet& kernels)
      : taps_(config.conv_taps), kernels_(kernels) {}

  /// Begins a step over the tokens of all spans, in order.
  void plan(const std::vector<Span>& spans);

  const std::vector<Span>& spans() const { return spans_; }
  /// The index of a span's first token in the step.
  int64_t first(int64_t span) const { return first_[static_cast<size_t>(span)]; }

  /// out = the convolution of token t's channels with w, (taps, channels), through silu if asked.
  void run(int64_t layer, int64_t t, const Channels& in, const float* w, bool silu,
           float* out) const;

  /// Leaves each sequence's last inputs in its state, once all tokens have run.
  void keep(Team& team, int64_t layer, const Channels& in) const;

 private:
  void keep(const Span& span, int64_t first, int64_t layer, const Channels& in, int64_t count,
            float* window) const;

  const int64_t taps_;
  const KernelSet& kernels_;

  // The step in progress.
  std::vector<Span> spans_;
  std::vector<int64_t> first_;    // (spans,) index of its first token in the step
  std::vector<int32_t> span_of_;  // (tokens,)
};

}  // namespace edgeinfer
