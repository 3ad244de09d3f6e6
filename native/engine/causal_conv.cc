#include "engine/causal_conv.h"

#include <algorithm>

namespace edgeinfer {

void CausalConv::plan(const std::vector<Span>& spans) {
  if (taps_ == 0) return;
  spans_ = spans;
  first_.clear();
  span_of_.clear();
  for (const Span& span : spans_) {
    const auto number = static_cast<int32_t>(first_.size());
    first_.push_back(static_cast<int64_t>(span_of_.size()));
    span_of_.insert(span_of_.end(), static_cast<size_t>(span.count), number);
    RecurrentState& state = span.cache->state;
    if (span.mark)
      state.mark(span.cache->length + span.mark, span.cache->length + span.count);
    else
      state.unmark();
  }
}

void CausalConv::run(int64_t layer, int64_t t, const Channels& in, const float* w, bool silu,
                     float* out) const {
  const auto number = static_cast<size_t>(span_of_[static_cast<size_t>(t)]);
  RecurrentState& state = spans_[number].cache->state;
  const float* const window = state.window(state.current(), layer);
  const int64_t place = t - first_[number];  // in its span
  const float* rows[kMostTaps];
  for (int64_t j = 0; j < taps_; ++j) {
    const int64_t back = taps_ - 1 - j;
    rows[j] = back <= place ? in.x + (t - back) * in.stride : window + (place + j) * in.count;
  }
  kernels_.convolve(rows, w, taps_, silu, in.count, out);
}

void CausalConv::keep(Team& team, int64_t layer, const Channels& in) const {
  team.for_each(static_cast<int64_t>(spans_.size()), 1, [&](int64_t i, int64_t) {
    const Span& span = spans_[static_cast<size_t>(i)];
    const int64_t first = first_[static_cast<size_t>(i)];
    RecurrentState& state = span.cache->state;
    if (float* marked = state.marked())
      keep(span, first, layer, in, span.mark, state.window(marked, layer));
    keep(span, first, layer, in, span.count, state.window(state.current(), layer));
  });
}

// The inputs of the last taps - 1 of the span's first `count` tokens and those before; `window`
// may be the old one.
void CausalConv::keep(const Span& span, int64_t first, int64_t layer, const Channels& in,
                      int64_t count, float* window) const {
  const RecurrentState& state = span.cache->state;
  const float* const old = state.window(state.current(), layer);
  for (int64_t j = 0; j < taps_ - 1; ++j) {
    const int64_t place = count - (taps_ - 1) + j;  // in the span
    const float* const row =
        place >= 0 ? in.x + (first + place) * in.stride : old + (j + count) * in.count;
    std::copy_n(row, in.count, window + j * in.count);
  }
}

}  // namespace edgeinfer
