#include "engine/attention.h"

#include <algorithm>
#include <cmath>

namespace edgeinfer {

// Few queries over a long context leave threads idle: then each block of the cache is a task.
void Attention::plan(const std::vector<Span>& spans, int threads) {
  tokens_.clear();
  groups_.clear();
  int64_t longest = 0, count = 0;
  for (const Span& span : spans) {
    const int64_t first = config_.causal ? span.cache->length : place(longest, span.count);
    const int64_t end = first + span.count;
    for (int64_t i = 0; i < span.count; ++i) {
      if (config_.causal)
        tokens_.push_back({span.cache, first + i, first + i, 0, first + i + 1});
      else
        tokens_.push_back({&step_kv_, i, first + i, first, end});
    }
    longest = std::max(longest, end);
    count += span.count;
  }
  const int64_t blocks = (longest + kKvBlock - 1) / kKvBlock;
  splits_ = count * blocks <= s_.partials ? blocks : 1;

  // As many tokens together as leave each thread several tasks.
  const int64_t tasks = 8 * threads;
  const int64_t share = (count * config_.kv_heads * splits_ + tasks - 1) / tasks;
  const int64_t most =
      std::clamp<int64_t>(share, 1, std::max<int64_t>(1, kMaxQueries / config_.most_sharing()));
  int64_t base = 0;
  for (const Span& span : spans) {
    for (int64_t i = 0; i < span.count; i += most)
      groups_.push_back({base + i, std::min(most, span.count - i)});
    base += span.count;
  }
}

void Attention::store(int64_t layer, int64_t t, const float* q, const float* k, const float* v) {
  const int64_t dim = config_.head_dim_of(layer), group = this->group(layer);
  const Token& token = tokens_[static_cast<size_t>(t)];
  const KvCache* cache = token.cache;
  const int64_t block = token.place / kKvBlock * cache->block_bytes();
  const int64_t place = token.place % kKvBlock;
  float turned[kMaxHeadDim];
  const auto keep = [&](auto write, const float* x, bool turn, uint8_t* where) {
    if (turn) {
      std::copy_n(x, dim, turned);
      kernels_.hadamard(turned, turn_size(dim), dim);
    }
    write(turn ? turned : x, dim, place, where + block);
  };
  const bool own = config_.has_kv(layer);
  for (int64_t head = 0; head < config_.kv_heads_of(layer); ++head) {
    if (own) {
      keep(kernels_.store_key[types_.k], k + head * dim, turn_keys_, cache->keys(layer, head));
      keep(kernels_.store_value[types_.v], v + head * dim, turn_values_,
           cache->values(layer, head));
    }
    float* queries = s_.queries + row(layer, 0, head, t) * dim;
    std::copy_n(q + head * group * dim, group * dim, queries);
    if (turn_keys_) kernels_.hadamard(queries, turn_size(dim), group * dim);
  }
}

// Neighbouring tasks are neighbours in memory: the heads of a block, or the queries of a head.
void Attention::run(Team& team, int64_t layer) {
  const int64_t heads = config_.kv_heads_of(layer), groups = static_cast<int64_t>(groups_.size());
  team.for_each(groups * heads * splits_, 1, [&](int64_t task, int64_t) {
    if (splits_ > 1) {
      const int64_t head = task % heads, split = task / heads % splits_;
      attend(layer, head, groups_[static_cast<size_t>(task / heads / splits_)], split);
    } else {
      attend(layer, task / groups, groups_[static_cast<size_t>(task % groups)], 0);
    }
  });
}

void Attention::attend(int64_t layer, int64_t kv_head, const QueryGroup& group, int64_t split) {
  const ModelConfig& c = config_;
  const int64_t dim = c.head_dim_of(layer), sharing = this->group(layer);
  const int64_t window = c.layer_window[static_cast<size_t>(layer)];
  const int64_t queries = group.count * sharing;
  const KvCache* cache = tokens_[static_cast<size_t>(group.first)].cache;
  int32_t begin[kMaxQueries], end[kMaxQueries];
  for (int64_t i = 0; i < queries; ++i) {
    const Token& t = tokens_[static_cast<size_t>(group.first + i / sharing)];
    // Both ways, a window has half of its width on each side.
    const int64_t before = c.causal ? window - 1 : window / 2, after = c.causal ? 0 : window / 2;
    begin[i] = static_cast<int32_t>(window ? std::max(t.begin, t.place - before) : t.begin);
    end[i] = static_cast<int32_t>(window ? std::min(t.end, t.place + after + 1) : t.end);
  }
  const int64_t out = row(layer, split, kv_head, group.first);
  kernels_.attend({
      .q = s_.queries + row(layer, 0, kv_head, group.first) * dim,
      .q_stride = dim,
      .k = cache->keys(layer, kv_head),
      .v = cache->values(layer, kv_head),
      .block_stride = cache->block_bytes(),
      .k_type = types_.k,
      .v_type = types_.v,
      .head_dim = dim,
      .queries = queries,
      .begin = begin,
      .end = end,
      .first = splits_ > 1 ? split * kKvBlock : begin[0],
      .last = splits_ > 1 ? (split + 1) * kKvBlock : end[queries - 1],
      .scale = c.attention_scale,
      .softcap = c.attention_softcap,
      .out = s_.mixed + out * dim,
      .out_stride = dim,
      .max = s_.mixed_max + out,
      .sum = s_.mixed_sum + out,
  });
}

void Attention::merge(int64_t layer, int64_t t, const float* sinks, float* out) {
  constexpr float kLog2e = 1.44269504f;
  const int64_t dim = config_.head_dim_of(layer), group = this->group(layer);
  for (int64_t head = 0; head < config_.heads; ++head, out += dim) {
    float max = sinks ? sinks[head] * kLog2e : -INFINITY, sum = sinks ? 1 : 0;
    std::fill_n(out, dim, 0.0f);
    for (int64_t split = 0; split < splits_; ++split) {
      const int64_t part = row(layer, split, head / group, t) + head % group;
      kernels_.merge(s_.mixed + part * dim, s_.mixed_max[part], s_.mixed_sum[part], dim, out, &max,
                     &sum);
    }
    for (int64_t d = 0; d < dim; ++d) out[d] /= sum;
    if (turn_values_) kernels_.hadamard(out, turn_size(dim), dim);
  }
}

}  // namespace edgeinfer
