// Adapter: low-rank changes to matrices (Hu et al., "LoRA: Low-Rank Adaptation of Large Language
// Models", 2021): y = W x + scale * B (A x), with A (rank, columns) and B (rows, rank).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/memory_region.h"
#include "engine/weights.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// The change of one matrix; the values are copied.
struct LowRankSource {
  std::string name;  // of the matrix: "blk.0.attn_q.weight"
  const float* a = nullptr;
  const float* b = nullptr;
  int64_t rank = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

/// Sets the next change, which is valid until the next call; false if there is none.
using NextLowRank = std::function<bool(LowRankSource&)>;

struct LowRank {
  Matrix a, b;
};

class Adapter {
 public:
  /// Throws std::invalid_argument naming a matrix that the model does not have, that cannot be
  /// adapted (a router, an expert, the vocabulary), that has another shape or occurs twice.
  Adapter(const Weights& weights, const NextLowRank& next, const KernelSet& kernels);

  /// The change of a matrix, or null.
  const LowRank* find(const Matrix& matrix) const {
    if (matrix.adaptable < 0) return nullptr;
    const LowRank& found = changes_[static_cast<size_t>(matrix.adaptable)];
    return found.a ? &found : nullptr;
  }
  int64_t max_rank() const { return max_rank_; }

 private:
  std::vector<LowRank> changes_;  // by Matrix::adaptable
  std::vector<MemoryRegion> regions_;
  int64_t max_rank_ = 0;
};

/// An adapter that a sequence uses, and how strongly.
struct AdapterUse {
  std::shared_ptr<const Adapter> adapter;
  float scale = 1;
};

}  // namespace edgeinfer
