// DeltaNet: the recurrence of a gated delta net (Yang et al., 2024, arXiv:2412.06464).
//
// Each value head has a state S, (key channels, value channels), a memory of values by keys. A
// token forgets a part of it, looks up what it holds for its key, corrects that towards its own
// value, and reads by its query:
//
//     S = decay * S;  S = S + k (beta * (v - S' k))';  out = S' q
//
// The value channels do not meet, so a task is a head's tile of them, over all tokens of a span in
// their order: results do not depend on how a text is cut into steps, nor on the threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "engine/causal_conv.h"
#include "engine/model_config.h"
#include "engine/scratch.h"
#include "engine/weights.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

class DeltaNet {
 public:
  /// All references must outlive it. `conv` knows the spans of a step.
  DeltaNet(const ModelConfig& config, const KernelSet& kernels, const Scratch& scratch,
           const CausalConv& conv);

  /// The channels that are convolved: queries, keys and values, as they are projected.
  Channels inputs() const;

  /// Token t's keys and queries get length 1, its decays and betas their values.
  void prepare(const Layer& layer, int64_t t, int64_t tokens) const;

  /// The recurrence of all heads; every thread of the team must call it.
  void run(Team& team, int64_t layer) const;

  /// Token t's normalised output through the gate, in the gate's place.
  void gate(const Layer& layer, int64_t t) const;

 private:
  int64_t key_width() const { return config_.delta_key_heads * config_.delta_dim; }
  void run(int64_t layer, const Span& span, int64_t first, int64_t head, int64_t tile) const;

  const ModelConfig& config_;
  const KernelSet& kernels_;
  const Scratch& s_;
  const CausalConv& conv_;
  std::vector<float> query_norm_, key_norm_;  // (delta_dim,) weights that make lengths of means
};

}  // namespace edgeinfer
