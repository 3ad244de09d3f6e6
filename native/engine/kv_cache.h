// KvCache: the keys and values of one sequence.
//
// Per layer and KV head, keys lie as (position / 16, head_dim, 16) and values as
// (position, head_dim): a vector of 16 positions is one load when scoring, a vector of
// channels one load when mixing. The whole context is reserved at once, but a page becomes
// resident only when a token is written to it.
#pragma once

#include <cstdint>

#include "core/memory_region.h"
#include "engine/model_config.h"

namespace edgeinfer {

enum class KvType { kF16, kF32 };

class KvCache {
 public:
  KvCache(const ModelConfig& config, int64_t context, KvType type)
      : kv_heads_(config.kv_heads),
        head_bytes_(head_bytes(config, context, type)),
        region_(bytes(config, context, type), MemoryRegion::Pages::kSmall) {}

  /// Bytes of a cache for `context` tokens.
  static size_t bytes(const ModelConfig& config, int64_t context, KvType type) {
    return static_cast<size_t>(config.layers * config.kv_heads) * 2 *
           head_bytes(config, context, type);
  }

  void* keys(int64_t layer, int64_t kv_head) const { return at(layer, kv_head, 0); }
  void* values(int64_t layer, int64_t kv_head) const { return at(layer, kv_head, 1); }

  int64_t length = 0;  // tokens stored

 private:
  static size_t head_bytes(const ModelConfig& config, int64_t context, KvType type) {
    const int64_t padded = (context + 15) / 16 * 16;
    return static_cast<size_t>(padded * config.head_dim * (type == KvType::kF16 ? 2 : 4));
  }
  void* at(int64_t layer, int64_t kv_head, int64_t which) const {
    return region_.data() +
           static_cast<size_t>((layer * kv_heads_ + kv_head) * 2 + which) * head_bytes_;
  }

  int64_t kv_heads_;
  size_t head_bytes_;
  MemoryRegion region_;
};

}  // namespace edgeinfer
