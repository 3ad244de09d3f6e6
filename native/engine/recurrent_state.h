// RecurrentState: what the recurrent layers of one sequence carry from token to token.
//
// Unlike keys and values it is overwritten by every token, so it cannot be cut back to any length.
// Therefore states of some earlier lengths are kept: the decoder writes one where a step asks for
// it (Span::mark), at the cost of a copy. Cutting back goes to the wanted length if its state is
// there, else to the next earlier one, or to the empty text; the rest is read again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/memory_region.h"
#include "engine/model_config.h"

namespace edgeinfer {

class RecurrentState {
 public:
  explicit RecurrentState(const ModelConfig& config);

  /// Bytes of a sequence's states, the kept ones too; 0 for a model without recurrent layers.
  static size_t bytes(const ModelConfig& config);

  /// Bytes of one state.
  size_t size() const { return static_cast<size_t>(floats_) * sizeof(float); }
  bool empty() const { return floats_ == 0; }
  /// The state after all tokens.
  float* current() const { return slot(current_); }
  /// The last inputs of a layer's convolution in a state, (conv_taps - 1, channels).
  float* window(float* state, int64_t layer) const {
    return state + offsets_[static_cast<size_t>(layer)];
  }

  /// A layer's matrices in a state, (delta_heads, delta_dim / kDeltaTile, delta_dim, kDeltaTile):
  /// of each value head, tiles of a few value channels by all key channels.
  float* matrices(float* state, int64_t layer) const {
    return window(state, layer) + window_floats_[static_cast<size_t>(layer)];
  }

  /// Begins a step of a text of `now` tokens that keeps the state of `length` (more) tokens; the
  /// layers write it to marked().
  void mark(int64_t length, int64_t now);
  void unmark() { marked_ = nullptr; }
  float* marked() const { return marked_; }

  /// Goes back to the state of at most `length` tokens and returns of how many.
  int64_t trim(int64_t length);
  /// The current state is another text's, of which no earlier states are known.
  void forget() { kept_.clear(); }

 private:
  struct Kept {
    int64_t length;
    int slot;
  };
  std::vector<Kept>::iterator least_useful(int64_t now);
  static int64_t floats(const ModelConfig& config);
  static int kept_most(int64_t floats);
  float* slot(int i) const {
    return reinterpret_cast<float*>(region_.data()) + static_cast<int64_t>(i) * floats_;
  }

  std::vector<int64_t> offsets_;        // (layers,) of a layer's part in a state
  std::vector<int64_t> window_floats_;  // (layers,)
  int64_t floats_;
  int current_ = 0;
  std::vector<Kept> kept_;  // the shortest first
  float* marked_ = nullptr;
  MemoryRegion region_;  // (1 + kept, floats)
};

}  // namespace edgeinfer
