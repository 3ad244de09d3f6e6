#include "engine/recurrent_state.h"

#include <algorithm>

namespace edgeinfer {
namespace {

constexpr int64_t kLine = 16;  // floats of a cache line
// How many states are kept: what fits here, within limits.
constexpr int64_t kKeptBytes = 16 << 20;
constexpr int64_t kLeastKept = 2, kMostKept = 16;

int64_t window_floats(const ModelConfig& c, int64_t layer) {
  const int64_t window = (c.conv_taps - 1) * c.conv_width(c.mixer(layer));
  return (window + kLine - 1) / kLine * kLine;
}

int64_t layer_floats(const ModelConfig& c, int64_t layer) {
  const bool delta = c.mixer(layer) == Mixer::kDeltaNet;
  return window_floats(c, layer) + (delta ? c.delta_heads * c.delta_dim * c.delta_dim : 0);
}

}  // namespace

int64_t RecurrentState::floats(const ModelConfig& c) {
  int64_t total = 0;
  for (int64_t i = 0; i < c.layers; ++i) total += layer_floats(c, i);
  return total;
}

int RecurrentState::kept_most(int64_t floats) {
  const auto bytes = floats * static_cast<int64_t>(sizeof(float));
  return static_cast<int>(std::clamp(kKeptBytes / bytes, kLeastKept, kMostKept));
}

size_t RecurrentState::bytes(const ModelConfig& c) {
  const int64_t each = floats(c);
  if (each == 0) return 0;
  return static_cast<size_t>(each * (1 + kept_most(each))) * sizeof(float);
}

RecurrentState::RecurrentState(const ModelConfig& c)
    : floats_(floats(c)), region_(bytes(c), MemoryRegion::Pages::kSmall) {
  int64_t offset = 0;
  for (int64_t i = 0; i < c.layers; ++i) {
    offsets_.push_back(offset);
    window_floats_.push_back(window_floats(c, i));
    offset += layer_floats(c, i);
  }
}

void RecurrentState::mark(int64_t length, int64_t now) {
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const Kept& kept) { return kept.length == length; });
  if (found == kept_.end()) {
    if (static_cast<int>(kept_.size()) == kept_most(floats_)) kept_.erase(least_useful(now));
    int free = 1;  // 0 is the current one
    const auto taken = [&](const Kept& kept) { return kept.slot == free; };
    while (std::any_of(kept_.begin(), kept_.end(), taken)) ++free;
    kept_.push_back({length, free});
  }
  std::sort(kept_.begin(), kept_.end(),
            [](const Kept& a, const Kept& b) { return a.length < b.length; });
  for (const Kept& kept : kept_)
    if (kept.length == length) marked_ = slot(kept.slot);
}

// The one whose loss would cost least: how far one would have to go back instead, times the
// lengths that it serves, which are asked for the less the longer ago they are.
std::vector<RecurrentState::Kept>::iterator RecurrentState::least_useful(int64_t now) {
  const auto loss = [&](const Kept& kept) {
    const int64_t i = &kept - kept_.data(), last = static_cast<int64_t>(kept_.size()) - 1;
    const int64_t before = i > 0 ? (&kept)[-1].length : 0,
                  next = i < last ? (&kept)[1].length : now;
    return static_cast<double>(kept.length - before) * static_cast<double>(next - kept.length) /
           static_cast<double>(now - kept.length + 1);
  };
  return std::min_element(kept_.begin(), kept_.end(),
                          [&](const Kept& a, const Kept& b) { return loss(a) < loss(b); });
}

int64_t RecurrentState::trim(int64_t length) {
  while (!kept_.empty() && kept_.back().length > length) kept_.pop_back();
  float* const now = current();
  if (kept_.empty()) {
    std::fill_n(now, floats_, 0.0f);
    return 0;
  }
  std::copy_n(slot(kept_.back().slot), floats_, now);
  return kept_.back().length;
}

}  // namespace edgeinfer
