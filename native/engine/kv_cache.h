// KvCache: the keys and values of one sequence, and the running state of its recurrent layers.
//
// The whole context is reserved at once, in blocks of kKvBlock positions that hold all layers of
// attention and heads: (block, layer, KV head, keys then values). A block becomes resident, in
// large pages, when its first token is written, so a short conversation in a long context stays
// small, and a head's share of a block is one linear stream.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory_region.h"
#include "engine/adapter.h"
#include "engine/model_config.h"
#include "engine/recurrent_state.h"
#include "kernels/kernel_set.h"
#include "quant/quant.h"

namespace edgeinfer {

struct KvTypes {
  QuantType k = kF16;
  QuantType v = kF16;
};

class KvCache {
 public:
  KvCache(const ModelConfig& config, int64_t context, KvTypes types)
      : state(config),
        kv_heads_(config.kv_heads),
        key_bytes_(row_bytes(config, types.k) * kKvBlock),
        head_bytes_(key_bytes_ + row_bytes(config, types.v) * kKvBlock),
        block_bytes_(config.kv_layers() * config.kv_heads * head_bytes_),
        region_(kv_bytes(config, context, types), MemoryRegion::Pages::kHuge) {
    int64_t place = 0;
    for (int64_t i = 0; i < config.layers; ++i)
      places_.push_back(config.mixer(i) != Mixer::kAttention ? -1 : config.causal ? place++ : 0);
  }

  /// Bytes of a cache for `context` tokens.
  static size_t bytes(const ModelConfig& config, int64_t context, KvTypes types) {
    return kv_bytes(config, context, types) + RecurrentState::bytes(config);
  }

  /// One head's keys and values in block 0; the next block's are block_bytes() on.
  uint8_t* keys(int64_t layer, int64_t kv_head) const {
    const int64_t place = places_[static_cast<size_t>(layer)];
    return region_.data() + (place * kv_heads_ + kv_head) * head_bytes_;
  }
  uint8_t* values(int64_t layer, int64_t kv_head) const {
    return keys(layer, kv_head) + key_bytes_;
  }
  int64_t block_bytes() const { return block_bytes_; }

  /// The first `tokens` tokens of all layers and heads lie in so many bytes from data() on.
  size_t used_bytes(int64_t tokens) const {
    return static_cast<size_t>((tokens + kKvBlock - 1) / kKvBlock * block_bytes_);
  }
  uint8_t* data() const { return region_.data(); }

  /// Forgets all but the first `tokens` tokens, or as many of them as there is a state of.
  void trim(int64_t tokens) {
    if (tokens < length) length = state.empty() ? tokens : state.trim(tokens);
  }

  int64_t length = 0;                // tokens stored
  std::vector<AdapterUse> adapters;  // by which they were, and will be, computed
  RecurrentState state;              // empty without recurrent layers

 private:
  static size_t kv_bytes(const ModelConfig& config, int64_t context, KvTypes types) {
    const int64_t blocks = (context + kKvBlock - 1) / kKvBlock;
    return static_cast<size_t>(blocks * kKvBlock * config.kv_layers() * config.kv_heads *
                               (row_bytes(config, types.k) + row_bytes(config, types.v)));
  }
  static int64_t row_bytes(const ModelConfig& config, QuantType type) {
    return quant_info(type).row_bytes(config.head_dim);
  }

  int64_t kv_heads_;
  int64_t key_bytes_, head_bytes_, block_bytes_;
  std::vector<int64_t>
      places_;  // (layers,) among those with attention; of a text that is read at once, one
  MemoryRegion region_;
};

}  // namespace edgeinfer
