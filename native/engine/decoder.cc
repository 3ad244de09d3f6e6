#include "engine/decoder.h"

#include <algorithm>
#include <cmath>

#include "quant/quant.h"

namespace edgeinfer {
namespace {

// Weights are handed out in pieces of about this size: large enough to stream, small enough
// that the last piece of a slow thread does not hold up the others.
constexpr int64_t kPieceBytes = 64 << 10;
constexpr int64_t kActivateColumns = 1024;
constexpr int64_t kSplitPositions = 256;

}  // namespace

Decoder::Decoder(const ModelConfig& config, const Weights& weights, const KernelSet& kernels,
                 ThreadPool& pool, int64_t batch, KvType kv_type)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      kv_type_(kv_type),
      s_(config, batch) {}

void Decoder::run(const std::vector<Span>& spans, const std::vector<int64_t>& wanted, Output output,
                  float* out) {
  token_ids_.clear();
  positions_.clear();
  caches_.clear();
  blocks_.clear();
  const int64_t block_tokens = std::max<int64_t>(1, kMaxQueries * config_.kv_heads / config_.heads);
  for (const Span& span : spans) {
    const auto base = static_cast<int64_t>(token_ids_.size());
    for (int64_t i = 0; i < span.count; ++i) {
      token_ids_.push_back(span.tokens[i]);
      positions_.push_back(span.cache->length + i);
      caches_.push_back(span.cache);
    }
    for (int64_t i = 0; i < span.count; i += block_tokens)
      blocks_.push_back(
          {&span, base + i, std::min(block_tokens, span.count - i), span.cache->length + i});
  }
  tokens_ = static_cast<int64_t>(token_ids_.size());
  wanted_ = &wanted;
  output_ = output;
  out_ = out;
  plan_attention();
  pool_.run([this](Team& team) { forward(team); });
  for (const Span& span : spans) span.cache->length += span.count;
}

void Decoder::forward(Team& team) {
  const auto each_token = [&](auto&& f) {
    team.for_each(tokens_, 1, [&](int64_t t, int64_t) { f(t); });
  };

  each_token([&](int64_t t) { embed(t); });
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = weights_.layers()[static_cast<size_t>(i)];

    each_token([&](int64_t t) { normalise(s_.x, layer.attn_norm, s_.h, t); });
    project(team, s_.h, config_.width, tokens_,
            {{layer.q, s_.q}, {layer.k, s_.k}, {layer.v, s_.v}});
    each_token([&](int64_t t) { rotate_and_store(i, t); });
    attend(team, i);
    each_token([&](int64_t t) { merge(t); });
    project(team, s_.q, config_.q_width(), tokens_, {{layer.o, s_.y}});
    each_token([&](int64_t t) { add_branch(layer.attn_post_norm, t); });

    each_token([&](int64_t t) { normalise(s_.x, layer.ffn_norm, s_.h, t); });
    project(team, s_.h, config_.width, tokens_, {{layer.gate, s_.gate}, {layer.up, s_.up}});
    activate(team, layer.down);
    project(team, s_.gate, config_.ff_width, tokens_, {{layer.down, s_.y}});
    each_token([&](int64_t t) { add_branch(layer.ffn_post_norm, t); });
  }
  finish(team);
}

// x = embedding[token] * scale, and the rotary angles of the token's position.
void Decoder::embed(int64_t t) {
  float* x = s_.x + t * config_.width;
  weights_.embed(token_ids_[static_cast<size_t>(t)], x);
  if (config_.embedding_scale != 1)
    for (int64_t i = 0; i < config_.width; ++i) x[i] *= config_.embedding_scale;

  const auto position = static_cast<float>(positions_[static_cast<size_t>(t)]);
  const int64_t half = config_.head_dim / 2;
  for (size_t table = 0; table < config_.rope_tables.size(); ++table) {
    const RopeTable& rope = config_.rope_tables[table];
    const int64_t row = (static_cast<int64_t>(table) * s_.batch + t) * half;
    for (size_t j = 0; j < rope.inverse_frequencies.size(); ++j) {
      const float angle = position * rope.inverse_frequencies[j];
      s_.cosines[row + static_cast<int64_t>(j)] = std::cos(angle) * rope.magnitude;
      s_.sines[row + static_cast<int64_t>(j)] = std::sin(angle) * rope.magnitude;
    }
  }
}

// h = norm(x), and its quantised form; families that normalise only after a block pass x on.
void Decoder::normalise(const float* x, const float* weight, float* h, int64_t t) {
  const int64_t n = config_.width;
  if (weight)
    kernels_.rms_norm(x + t * n, weight, config_.norm_eps, n, h + t * n);
  else
    std::copy(x + t * n, x + (t + 1) * n, h + t * n);
  quantise(h, n, t, t + 1);
}

// Rows of whole 32s only: narrower inputs occur with float weights, which read the floats.
void Decoder::quantise(const float* x, int64_t cols, int64_t t0, int64_t t1) {
  if (cols % kStep == 0) kernels_.quantize(x, cols, cols, tokens_, t0, t1, s_.blocks);
}

// x = x + scale * norm(y)
void Decoder::add_branch(const float* post_norm, int64_t t) {
  const int64_t n = config_.width;
  float* y = s_.y + t * n;
  if (post_norm) kernels_.rms_norm(y, post_norm, config_.norm_eps, n, y);
  kernels_.add_scaled(s_.x + t * n, y, config_.residual_scale, n);
}

// Queries and keys are normalised and turned; keys and values go to the cache, queries to
// the order in which attention reads them.
void Decoder::rotate_and_store(int64_t index, int64_t t) {
  const ModelConfig& c = config_;
  const Layer& layer = weights_.layers()[static_cast<size_t>(index)];
  float* q = s_.q + t * c.q_width();
  float* k = s_.k + t * c.kv_width();
  const float* v = s_.v + t * c.kv_width();
  const int64_t group = c.heads / c.kv_heads;

  const auto norm_heads = [&](float* rows, int64_t heads, const float* weight) {
    const int64_t n = c.qk_norm == QkNorm::kFull ? heads * c.head_dim : c.head_dim;
    for (float* row = rows; row != rows + heads * c.head_dim; row += n)
      kernels_.rms_norm(row, weight, c.norm_eps, n, row);
  };
  if (c.qk_norm != QkNorm::kNone) {
    norm_heads(q, c.heads, layer.q_norm);
    norm_heads(k, c.kv_heads, layer.k_norm);
  }
  if (const int32_t table = c.layer_rope[static_cast<size_t>(index)]; table >= 0) {
    const auto& frequencies = c.rope_tables[static_cast<size_t>(table)].inverse_frequencies;
    const auto rope_dim = static_cast<int64_t>(2 * frequencies.size());
    const int64_t row = (table * s_.batch + t) * (c.head_dim / 2);
    for (auto [rows, heads] : {std::pair{q, c.heads}, std::pair{k, c.kv_heads}})
      kernels_.rope(rows, heads, c.head_dim, rope_dim, s_.cosines + row, s_.sines + row,
                    c.rope_neighbours);
  }
  const KvCache& cache = *caches_[static_cast<size_t>(t)];
  for (int64_t head = 0; head < c.kv_heads; ++head) {
    kernels_.store_kv(k + head * c.head_dim, v + head * c.head_dim, c.head_dim,
                      positions_[static_cast<size_t>(t)], kv_type_ == KvType::kF16,
                      cache.keys(index, head), cache.values(index, head));
    std::copy_n(q + head * group * c.head_dim, group * c.head_dim,
                s_.queries + (head * tokens_ + t) * group * c.head_dim);
  }
}

// Few queries over a long context leave threads idle: cut the positions into splits then.
void Decoder::plan_attention() {
  int64_t longest = 0;
  for (const QueryBlock& block : blocks_) longest = std::max(longest, block.position + block.count);
  const int64_t tasks = static_cast<int64_t>(blocks_.size()) * config_.kv_heads;
  const int64_t wanted = (4 * pool_.size() + tasks - 1) / tasks;
  const int64_t useful = (longest + kSplitPositions - 1) / kSplitPositions;
  splits_ = std::max<int64_t>(1, std::min({wanted, useful, s_.partials / tokens_}));
}

// Flash attention (Dao et al., 2022): one task per query block, KV head and split.
void Decoder::attend(Team& team, int64_t index) {
  const ModelConfig& c = config_;
  const int64_t group = c.heads / c.kv_heads;
  const int64_t window = c.layer_window[static_cast<size_t>(index)];
  const auto blocks = static_cast<int64_t>(blocks_.size());

  team.for_each(blocks * c.kv_heads * splits_, 1, [&](int64_t task, int64_t) {
    const int64_t split = task % splits_;
    const int64_t head = task / splits_ % c.kv_heads;
    const QueryBlock& block = blocks_[static_cast<size_t>(task / splits_ / c.kv_heads)];

    int32_t begin[kMaxQueries], end[kMaxQueries];
    for (int64_t i = 0; i < block.count * group; ++i) {
      const int64_t position = block.position + i / group;
      begin[i] = static_cast<int32_t>(window ? std::max<int64_t>(0, position + 1 - window) : 0);
      end[i] = static_cast<int32_t>(position + 1);
    }
    const int64_t first = begin[0] / 16, last = (end[block.count * group - 1] + 15) / 16;
    const int64_t row = (split * c.kv_heads + head) * tokens_ + block.first;
    kernels_.attend({
        .q = s_.queries + (head * tokens_ + block.first) * group * c.head_dim,
        .q_stride = c.head_dim,
        .k = block.span->cache->keys(index, head),
        .v = block.span->cache->values(index, head),
        .kv_half = kv_type_ == KvType::kF16,
        .head_dim = c.head_dim,
        .queries = block.count * group,
        .begin = begin,
        .end = end,
        .first = 16 * (first + (last - first) * split / splits_),
        .last = 16 * (first + (last - first) * (split + 1) / splits_),
        .scale = c.attention_scale,
        .softcap = c.attention_softcap,
        .out = s_.mixed + row * group * c.head_dim,
        .out_stride = c.head_dim,
        .max = s_.mixed_max + row * group,
        .sum = s_.mixed_sum + row * group,
    });
  });
}

// The splits' partial softmaxes become one, written over the token's queries.
void Decoder::merge(int64_t t) {
  const ModelConfig& c = config_;
  const int64_t group = c.heads / c.kv_heads;
  for (int64_t head = 0; head < c.heads; ++head) {
    const auto row = [&](int64_t split) {
      return ((split * c.kv_heads + head / group) * tokens_ + t) * group + head % group;
    };
    float largest = -INFINITY, sum = 0;
    for (int64_t s = 0; s < splits_; ++s) largest = std::max(largest, s_.mixed_max[row(s)]);
    for (int64_t s = 0; s < splits_; ++s)
      sum += s_.mixed_sum[row(s)] * std::exp(s_.mixed_max[row(s)] - largest);
    float* out = s_.q + t * c.q_width() + head * c.head_dim;
    std::fill_n(out, c.head_dim, 0.0f);
    for (int64_t s = 0; s < splits_; ++s)
      kernels_.add_scaled(out, s_.mixed + row(s) * c.head_dim,
                          std::exp(s_.mixed_max[row(s)] - largest) / sum, c.head_dim);
  }
  quantise(s_.q, c.q_width(), t, t + 1);
}

// gate = activation(gate) * up, and its quantised form.
void Decoder::activate(Team& team, const Matrix& next) {
  const int64_t n = config_.ff_width;
  const auto gated =
      config_.activation == Activation::kSilu ? kernels_.silu_mul : kernels_.gelu_mul;
  const int64_t pieces = (n + kActivateColumns - 1) / kActivateColumns;
  team.for_each(tokens_ * pieces, 1, [&](int64_t i, int64_t) {
    const int64_t t = i / pieces, col = i % pieces * kActivateColumns;
    const int64_t cols = std::min(kActivateColumns, n - col);
    float* gate = s_.gate + t * n + col;
    gated(gate, s_.up + t * n + col, cols);
    if (next.quantised())
      kernels_.quantize(s_.gate + col, n, cols, tokens_, t, t + 1,
                        s_.blocks + col / kStep * tokens_);
  });
}

// out = in * matrix' + bias for matrices that share their input.
void Decoder::project(Team& team, const float* in, int64_t cols, int64_t tokens,
                      std::initializer_list<Product> products) {
  const Activations x{in, s_.blocks, cols, tokens, cols};
  int64_t groups = 0;
  for (const Product& p : products) groups += p.matrix.groups();
  const int64_t group_bytes =
      quant_info(products.begin()->matrix.type).packed_bytes(kGroupRows, cols);
  const int64_t piece =
      std::max<int64_t>(2, std::min(kPieceBytes / group_bytes, groups / (8 * team.size())) / 2 * 2);

  team.for_each(groups, piece, [&](int64_t begin, int64_t end) {
    for (const Product& p : products) {
      const Matrix& m = p.matrix;
      const int64_t g0 = std::max<int64_t>(begin, 0), g1 = std::min(end, m.groups());
      if (g0 < g1) {
        kernels_.matmul[m.type](m.packed, m.rows, g0, g1, x, p.out, m.rows);
        if (m.bias) {
          const int64_t row = g0 * kGroupRows, rows = std::min(m.rows, g1 * kGroupRows) - row;
          for (int64_t t = 0; t < x.tokens; ++t)
            kernels_.add_scaled(p.out + t * m.rows + row, m.bias + row, 1.0f, rows);
        }
      }
      begin -= m.groups();
      end -= m.groups();
    }
  });
}

// The wanted rows: out = norm(x), or the logits, scaled and capped.
void Decoder::finish(Team& team) {
  const ModelConfig& c = config_;
  const auto rows = static_cast<int64_t>(wanted_->size());
  if (rows == 0) return;
  float* normed = output_ == Output::kHidden ? out_ : s_.h;
  team.for_each(rows, 1, [&](int64_t i, int64_t) {
    kernels_.rms_norm(s_.x + (*wanted_)[static_cast<size_t>(i)] * c.width, weights_.output_norm(),
                      c.norm_eps, c.width, normed + i * c.width);
    if (output_ == Output::kLogits && weights_.output().quantised())
      kernels_.quantize(normed, c.width, c.width, rows, i, i + 1, s_.blocks);
  });
  if (output_ == Output::kHidden) return;

  project(team, s_.h, c.width, rows, {{weights_.output(), out_}});
  if (c.output_scale != 1 || c.output_softcap > 0) {
    const float cap = c.output_softcap;
    team.for_each(rows * c.vocab_size, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float y = out_[i] * c.output_scale;
        out_[i] = cap > 0 ? cap * std::tanh(y / cap) : y;
      }
    });
  }
}

}  // namespace edgeinfer
