// Attention: what a step's queries read of the KV caches, for every family.
//
// Vaswani et al. (2017) with grouped queries (Ainslie et al., 2023), sliding windows and a soft
// cap, computed as flash attention (Dao et al., 2022): tasks of a block of queries, a KV head and
// a range of positions, whose partial softmaxes merge exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/scratch.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// Consecutive tokens of one sequence, appended at its cache's length.
struct Span {
  KvCache* cache;
  const int32_t* tokens;
  int64_t count;
};

class Attention {
 public:
  /// All references must outlive it.
  Attention(const ModelConfig& config, const KernelSet& kernels, const Scratch& scratch,
            KvType kv_type)
      : config_(config), kernels_(kernels), s_(scratch), kv_type_(kv_type) {}

  /// Begins a step of `threads` threads over the tokens of all spans, in order.
  void plan(const std::vector<Span>& spans, int threads);

  int64_t position(int64_t t) const { return tokens_[static_cast<size_t>(t)].position; }

  /// Stores token t's row of keys and of values (kv_width,) in the cache of `layer`, and its
  /// queries (q_width,) in the order in which they will be read. Keys and queries are roped.
  void store(int64_t layer, int64_t t, const float* q, const float* k, const float* v);

  /// Attends for all stored queries; every thread of the team must call it. Ends at a barrier.
  void run(Team& team, int64_t layer);

  /// Token t's weighted values (q_width,).
  void merge(int64_t t, float* out);

 private:
  struct Token {
    const KvCache* cache;
    int64_t position;
  };
  // Up to kMaxQueries queries (tokens x heads of a group) that share their keys.
  struct QueryBlock {
    const KvCache* cache;
    int64_t first;     // index in the batch
    int64_t count;     // tokens
    int64_t position;  // of the first token
  };
  static constexpr int64_t kMaxQueries = 64;

  int64_t group() const { return config_.heads / config_.kv_heads; }

  const ModelConfig& config_;
  const KernelSet& kernels_;
  const Scratch& s_;
  const KvType kv_type_;

  // The step in progress.
  std::vector<Token> tokens_;
  std::vector<QueryBlock> blocks_;
  int64_t splits_ = 1;
};

}  // namespace edgeinfer
