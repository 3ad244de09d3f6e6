// Attention: what a step's queries read of the KV caches, for every family.
//
// Tokens see those before them in their sequence's cache, or, in models that read texts both ways,
// all of their text, whose keys and values live for a layer in a cache that the texts of a step
// share.
//
// Vaswani et al. (2017) with grouped queries (Ainslie et al., 2023), sliding windows and a soft
// cap, computed as flash attention (Dao et al., 2022). A task is a group of queries and a KV head,
// over all of the cache or one block of it; blocks are merged in order either way, so results do
// not depend on how the work is cut: not on the threads, nor on what else is in the batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/scratch.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// Consecutive tokens of one sequence, appended at its cache's length; or a whole text.
struct Span {
  KvCache* cache;
  const int32_t* tokens;
  int64_t count;
  int64_t mark = 0;  // after so many of them the running state is kept; 0: nowhere
};

class Attention {
 public:
  /// All references must outlive it.
  Attention(const ModelConfig& config, const KernelSet& kernels, const Scratch& scratch,
            KvTypes types, const KvCache& step_kv)
      : config_(config),
        kernels_(kernels),
        s_(scratch),
        types_(types),
        step_kv_(step_kv),
        turn_keys_(quant_info(types.k).block > 1),
        turn_values_(quant_info(types.v).block > 1) {}

  /// Places that the texts of a step of `batch` tokens share, and where one of `count` tokens goes
  /// if `used` are taken: at a tile, and in another block only if it is longer than one, so that
  /// it is computed alike whatever it is read with.
  static int64_t places(int64_t batch) { return (4 * batch + kKvBlock - 1) / kKvBlock * kKvBlock; }
  static int64_t place(int64_t used, int64_t count) {
    const int64_t tile = (used + kKvTile - 1) / kKvTile * kKvTile,
                  rest = kKvBlock - tile % kKvBlock;
    return count <= rest || rest == kKvBlock ? tile : tile + rest;
  }

  /// Begins a step of `threads` threads over the tokens of all spans, in order.
  void plan(const std::vector<Span>& spans, int threads);

  int64_t position(int64_t t) const { return tokens_[static_cast<size_t>(t)].position; }

  /// Stores token t's row of keys and of values (kv_width,) in the cache of `layer`, if they are
  /// its own, and its queries (q_width,) in the order in which they will be read. Keys and queries
  /// are roped.
  void store(int64_t layer, int64_t t, const float* q, const float* k, const float* v);

  /// Attends for all stored queries; every thread of the team must call it. Ends at a barrier.
  void run(Team& team, int64_t layer);

  /// Token t's weighted values (q_width,). With `sinks` (heads,), scores that each head's softmax
  /// counts beside those of the keys, and that have no value (Xiao et al., 2023); null without.
  void merge(int64_t layer, int64_t t, const float* sinks, float* out);

 private:
  struct Token {
    const KvCache* cache;
    int64_t position;    // in its text
    int64_t place;       // in the cache
    int64_t begin, end;  // places that it sees if there is no window
  };
  // Up to kMaxQueries queries (tokens x heads of a group) that share their keys.
  struct QueryGroup {
    int64_t first;  // index in the batch
    int64_t count;  // tokens
  };
  static constexpr int64_t kMaxQueries = 96;
  static constexpr int64_t kMostTurned = 64;  // channels

  // Queries that share a KV head.
  int64_t group(int64_t layer) const { return config_.heads / config_.kv_heads_of(layer); }
  // The first row of a partial result: of head's first query of token t, and a range of positions.
  int64_t row(int64_t layer, int64_t split, int64_t kv_head, int64_t t) const {
    const int64_t kv_heads = config_.kv_heads_of(layer);
    return ((split * kv_heads + kv_head) * static_cast<int64_t>(tokens_.size()) + t) * group(layer);
  }
  // Channels that are turned together.
  static int64_t turn_size(int64_t dim) { return std::min<int64_t>(dim & -dim, kMostTurned); }
  void attend(int64_t layer, int64_t kv_head, const QueryGroup& queries, int64_t split);

  const ModelConfig& config_;
  const KernelSet& kernels_;
  const Scratch& s_;
  const KvTypes types_;
  const KvCache& step_kv_;
  // What is kept in a block type is turned by a Walsh-Hadamard matrix, so that no channel stands
  // out: queries and keys alike, which leaves their products as they are, or values, which turn
  // back when they are summed.
  const bool turn_keys_, turn_values_;

  // The step in progress.
  std::vector<Token> tokens_;
  std::vector<QueryGroup> groups_;
  int64_t splits_ = 1;  // ranges of positions: one, or one per block of the cache
};

}  // namespace edgeinfer
