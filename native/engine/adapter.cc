#include "engine/adapter.h"

#include <algorithm>
#include <stdexcept>

#include "quant/quant.h"

namespace edgeinfer {

Adapter::Adapter(const Weights& weights, const NextLowRank& next, const KernelSet& kernels)
    : changes_(weights.adaptable().size()) {
  const auto pack = [&](const float* values, int64_t rows, int64_t cols) {
    regions_.emplace_back(static_cast<size_t>(quant_info(kF32).packed_bytes(rows, cols)),
                          MemoryRegion::Pages::kSmall);
    uint8_t* const to = regions_.back().data();
    kernels.pack[kF32](reinterpret_cast<const uint8_t*>(values), rows, cols, to);
    return Matrix{to, kF32, rows, cols};
  };
  LowRankSource s;
  while (next(s)) {
    const auto it = weights.adaptable().find(s.name);
    if (it == weights.adaptable().end())
      throw std::invalid_argument("tensor " + s.name + " cannot be adapted");
    const Matrix& matrix = *it->second;
    if (matrix.rows != s.rows || matrix.cols != s.cols || s.rank < 1)
      throw std::invalid_argument(
          "the adapter's " + s.name + " is " + std::to_string(s.rows) + " x " +
          std::to_string(s.cols) + " of rank " + std::to_string(s.rank) + ", the model's is " +
          std::to_string(matrix.rows) + " x " + std::to_string(matrix.cols));
    LowRank& change = changes_[static_cast<size_t>(matrix.adaptable)];
    if (change.a) throw std::invalid_argument("tensor " + s.name + " occurs twice");
    change = {pack(s.a, s.rank, s.cols), pack(s.b, s.rows, s.rank)};
    max_rank_ = std::max(max_rank_, s.rank);
  }
}

}  // namespace edgeinfer
