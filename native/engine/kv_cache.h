// KvCache: the keys and values of one sequence, and the running state of its recurrent layers.
//
// The whole context is reserved at once, in blocks of kKvBlock positions that hold all layers of
// attention and heads: (block, layer, KV head, keys then values). Layers that read another's keys
// and values have its place. A block becomes resident, in
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
        places_(places(config, types, block_bytes_)),
        region_(kv_bytes(config, context, types), MemoryRegion::Pages::kHuge) {}

  /// Bytes of a cache for `context` tokens.
  static size_t bytes(const ModelConfig& config, int64_t context, KvTypes types) {
    return kv_bytes(config, context, types) + RecurrentState::bytes(config);
  }

  /// One head's keys and values in block 0; the next block's are block_bytes() on.
  uint8_t* keys(int64_t layer, int64_t kv_head) const {
    const Place& place = places_[static_cast<size_t>(layer)];
    return region_.data() + place.offset + kv_head * place.head_bytes;
  }
  uint8_t* values(int64_t layer, int64_t kv_head) const {
    return keys(layer, kv_head) + places_[static_cast<size_t>(layer)].key_bytes;
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
  // Where a layer's heads lie in a block, and the bytes of one, and of its keys.
  struct Place {
    int64_t offset, head_bytes, key_bytes;
  };

  // Of all layers; those of a text that is read at once have one place for all, one by one.
  static std::vector<Place> places(const ModelConfig& c, KvTypes types, int64_t& block_bytes) {
    std::vector<Place> found(static_cast<size_t>(c.layers));
    block_bytes = 0;
    for (int64_t i = 0; i < c.layers; ++i) {
      if (c.mixer(i) != Mixer::kAttention) continue;
      Place& place = found[static_cast<size_t>(i)];
      const int64_t keys = quant_info(types.k).row_bytes(c.head_dim_of(i)) * kKvBlock;
      const int64_t values = quant_info(types.v).row_bytes(c.head_dim_of(i)) * kKvBlock;
      const int64_t end = c.causal ? block_bytes : 0;
      place = {end, keys + values, keys};
      if (c.has_kv(i))
        block_bytes = end + c.kv_heads_of(i) * place.head_bytes;
      else
        place = found[static_cast<size_t>(c.kv_of(i))];
    }
    return found;
  }
  static size_t kv_bytes(const ModelConfig& config, int64_t context, KvTypes types) {
    int64_t block_bytes = 0;
    places(config, types, block_bytes);
    return static_cast<size_t>((context + kKvBlock - 1) / kKvBlock * block_bytes);
  }

  int64_t block_bytes_ = 0;
  std::vector<Place> places_;  // (layers,)
  MemoryRegion region_;
};

}  // namespace edgeinfer
