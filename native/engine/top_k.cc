#include "engine/top_k.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>

namespace edgeinfer {
namespace {

constexpr size_t kBlock = 128;
constexpr float kImpossible = -std::numeric_limits<float>::infinity();

/// Integers in the order of the floats, and back: GCC keeps loops over floats scalar where a NaN
/// could matter. NaN comes above +inf or, with the sign bit, below -inf.
constexpr int32_t ordered(int32_t bits) {
  return bits ^ static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
}
constexpr int32_t ordered(float x) { return ordered(std::bit_cast<int32_t>(x)); }
constexpr float from_ordered(int32_t key) { return std::bit_cast<float>(ordered(key)); }

struct Range {
  int32_t least = std::numeric_limits<int32_t>::max();
  int32_t most = std::numeric_limits<int32_t>::min();
};

Range range_of(const float* x, size_t count) {
  Range range;
  for (size_t i = 0; i < count; ++i) {
    const int32_t key = ordered(x[i]);
    range.least = std::min(range.least, key);
    range.most = std::max(range.most, key);
  }
  return range;
}

void check(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    // Written so that NaN fails too.
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      throw std::domain_error("the logit of token " + std::to_string(i) + " is " +
                              std::to_string(logits[i]));
    }
  }
}

}  // namespace

void TopK::read(std::span<const float> logits, std::span<const int> excluded) {
  logits_ = logits;
  excluded_ = excluded;
  maxima_.resize((logits.size() + kBlock - 1) / kBlock);
  Range all;
  for (size_t b = 0; b < maxima_.size(); ++b) {
    const float* block = logits.data() + b * kBlock;
    const size_t left = logits.size() - b * kBlock;
    // The constant count makes straight vector code of all blocks but the last.
    const Range range = left >= kBlock ? range_of(block, kBlock) : range_of(block, left);
    all.least = std::min(all.least, range.least);
    all.most = std::max(all.most, range.most);
    maxima_[b] = from_ordered(range.most);
  }
  if (all.least < ordered(kImpossible) || all.most >= ordered(-kImpossible)) check(logits);
  best_ = from_ordered(all.most);

  for (size_t i = 0; i < excluded.size();) {
    const size_t block = static_cast<size_t>(excluded[i]) / kBlock;
    const std::span<const int> gone = excluded_in(block);
    const size_t end = std::min(logits.size(), (block + 1) * kBlock);
    float most = kImpossible;
    auto next = gone.begin();
    for (size_t token = block * kBlock; token < end; ++token) {
      if (next != gone.end() && *next == static_cast<int>(token)) {
        ++next;
      } else {
        most = std::max(most, logits[token]);
      }
    }
    maxima_[block] = most;
    i += gone.size();
  }
}

std::span<const int> TopK::excluded_in(size_t block) const {
  const auto first = std::ranges::lower_bound(excluded_, static_cast<int>(block * kBlock));
  const auto last = std::ranges::lower_bound(excluded_, static_cast<int>((block + 1) * kBlock));
  return {first, last};
}

void TopK::collect(size_t k, std::vector<Candidate>& out) const {
  float bound = kImpossible;
  if (k <= maxima_.size()) {
    order_ = maxima_;
    const auto place = order_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(order_.begin(), place, order_.end(), std::greater{});
    bound = *place;
  }
  for (size_t b = 0; b < maxima_.size(); ++b) {
    if (maxima_[b] < bound || maxima_[b] == kImpossible) continue;
    const std::span<const int> gone = excluded_in(b);
    const size_t end = std::min(logits_.size(), (b + 1) * kBlock);
    for (size_t i = b * kBlock; i < end; ++i) {
      const int token = static_cast<int>(i);
      if (logits_[i] < bound || logits_[i] == kImpossible) continue;
      if (std::ranges::binary_search(gone, token)) continue;
      out.push_back({logits_[i], 0, token});
    }
  }
}

}  // namespace edgeinfer
