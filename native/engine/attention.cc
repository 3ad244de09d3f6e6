#include "engine/attention.h"

#include <algorithm>
#include <cmath>

namespace edgeinfer {
namespace {

constexpr int64_t kSplitPositions = 256;

}  // namespace

// Few queries over a long context leave threads idle: the positions are cut into splits then.
void Attention::plan(const std::vector<Span>& spans, int threads) {
  tokens_.clear();
  blocks_.clear();
  const int64_t block_tokens = std::max<int64_t>(1, kMaxQueries / group());
  int64_t longest = 0;
  for (const Span& span : spans) {
    const auto base = static_cast<int64_t>(tokens_.size());
    const int64_t length = span.cache->length;
    for (int64_t i = 0; i < span.count; ++i) tokens_.push_back({span.cache, length + i});
    for (int64_t i = 0; i < span.count; i += block_tokens)
      blocks_.push_back({span.cache, base + i, std::min(block_tokens, span.count - i), length + i});
    longest = std::max(longest, length + span.count);
  }
  const int64_t tasks = static_cast<int64_t>(blocks_.size()) * config_.kv_heads;
  const int64_t wanted = (4 * threads + tasks - 1) / tasks;
  const int64_t useful = (longest + kSplitPositions - 1) / kSplitPositions;
  const int64_t room = s_.partials / static_cast<int64_t>(tokens_.size());
  splits_ = std::max<int64_t>(1, std::min({wanted, useful, room}));
}

void Attention::store(int64_t layer, int64_t t, const float* q, const float* k, const float* v) {
  const ModelConfig& c = config_;
  const auto& [cache, position] = tokens_[static_cast<size_t>(t)];
  const auto tokens = static_cast<int64_t>(tokens_.size());
  for (int64_t head = 0; head < c.kv_heads; ++head) {
    kernels_.store_kv(k + head * c.head_dim, v + head * c.head_dim, c.head_dim, position,
                      kv_type_ == KvType::kF16, cache->keys(layer, head),
                      cache->values(layer, head));
    std::copy_n(q + head * group() * c.head_dim, group() * c.head_dim,
                s_.queries + (head * tokens + t) * group() * c.head_dim);
  }
}

void Attention::run(Team& team, int64_t layer) {
  const ModelConfig& c = config_;
  const int64_t window = c.layer_window[static_cast<size_t>(layer)];
  const auto tokens = static_cast<int64_t>(tokens_.size());
  const auto blocks = static_cast<int64_t>(blocks_.size());

  team.for_each(blocks * c.kv_heads * splits_, 1, [&](int64_t task, int64_t) {
    const int64_t split = task % splits_;
    const int64_t head = task / splits_ % c.kv_heads;
    const QueryBlock& block = blocks_[static_cast<size_t>(task / splits_ / c.kv_heads)];
    const int64_t queries = block.count * group();

    int32_t begin[kMaxQueries], end[kMaxQueries];
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t position = block.position + i / group();
      begin[i] = static_cast<int32_t>(window ? std::max<int64_t>(0, position + 1 - window) : 0);
      end[i] = static_cast<int32_t>(position + 1);
    }
    const int64_t first = begin[0] / 16, last = (end[queries - 1] + 15) / 16;
    const int64_t row = (split * c.kv_heads + head) * tokens + block.first;
    kernels_.attend({
        .q = s_.queries + (head * tokens + block.first) * group() * c.head_dim,
        .q_stride = c.head_dim,
        .k = block.cache->keys(layer, head),
        .v = block.cache->values(layer, head),
        .kv_half = kv_type_ == KvType::kF16,
        .head_dim = c.head_dim,
        .queries = queries,
        .begin = begin,
        .end = end,
        .first = 16 * (first + (last - first) * split / splits_),
        .last = 16 * (first + (last - first) * (split + 1) / splits_),
        .scale = c.attention_scale,
        .softcap = c.attention_softcap,
        .out = s_.mixed + row * group() * c.head_dim,
        .out_stride = c.head_dim,
        .max = s_.mixed_max + row * group(),
        .sum = s_.mixed_sum + row * group(),
    });
  });
}

// The splits' partial softmaxes become one.
void Attention::merge(int64_t t, float* out) {
  const ModelConfig& c = config_;
  const auto tokens = static_cast<int64_t>(tokens_.size());
  for (int64_t head = 0; head < c.heads; ++head, out += c.head_dim) {
    const auto row = [&](int64_t split) {
      return ((split * c.kv_heads + head / group()) * tokens + t) * group() + head % group();
    };
    float largest = -INFINITY, sum = 0;
    for (int64_t s = 0; s < splits_; ++s) largest = std::max(largest, s_.mixed_max[row(s)]);
    for (int64_t s = 0; s < splits_; ++s)
      sum += s_.mixed_sum[row(s)] * std::exp(s_.mixed_max[row(s)] - largest);
    std::fill_n(out, c.head_dim, 0.0f);
    for (int64_t s = 0; s < splits_; ++s)
      kernels_.add_scaled(out, s_.mixed + row(s) * c.head_dim,
                          std::exp(s_.mixed_max[row(s)] - largest) / sum, c.head_dim);
  }
}

}  // namespace edgeinfer
