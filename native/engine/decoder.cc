#include "engine/decoder.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "quant/quant.h"

namespace edgeinfer {
namespace {

// Weights are handed out in pieces of about this size: large enough to stream, small enough
// that the last piece of a slow thread does not hold up the others.
constexpr int64_t kPieceBytes = 64 << 10;
// What a waiting thread fetches of the weights that it will need next: no more than it can
// keep in its own cache.
constexpr int64_t kAheadBytes = 64 << 10;
// Up to so many tokens a step waits for memory, so that all cores are not always the best.
constexpr int64_t kDecodeTokens = 8;

// Tokens whose inputs one thread brings to an adapter's rank at a time.
constexpr int64_t kAdaptedTokens = 64;
// At most so many matrices share their input and may be adapted: queries, keys and values, or what
// a delta net is made of.
constexpr int64_t kSharing = 4;

// What gate and up make of a slice of tokens and rows stays in the first cache until it is
// quantised.
constexpr int64_t kSliceTokens = 128;
constexpr int64_t kSliceFloats = kSliceTokens * 2 * kGroupRows;

int64_t group_bytes(const Matrix& m) { return quant_info(m.type).packed_bytes(kGroupRows, m.cols); }

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Groups to hand out at a time; an even number, which is what the kernels take together and
// whole blocks of 32 rows.
int64_t piece_groups(const Team& team, const Matrix& m, int64_t groups) {
  return std::max<int64_t>(
      2, std::min(kPieceBytes / group_bytes(m), groups / (8 * team.size())) / 2 * 2);
}

// Fetches a matrix from a group on, a few cache lines at each call, while a thread waits.
class Ahead {
 public:
  Ahead(const Matrix& m, int64_t group)
      : next_(m.packed + group * group_bytes(m)),
        end_(std::min(next_ + kAheadBytes, m.packed + m.groups() * group_bytes(m))) {}

  void operator()() {
    for (int line = 0; line < 8 && next_ < end_; ++line, next_ += 64)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  const uint8_t *next_, *end_;
};

}  // namespace

Decoder::Decoder(const ModelConfig& config, const Weights& weights, const KernelSet& kernels,
                 ThreadPool& pool, int64_t batch, KvTypes kv_types, int threads, int batch_threads)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      batch_threads_(batch_threads),
      team_size_(threads),
      s_(config, batch),
      step_kv_(config, config.causal ? 0 : Attention::places(batch), kv_types),
      attention_(config, kernels, s_, kv_types, step_kv_),
      causal_conv_(config, kernels),
      delta_net_(config, kernels, s_, causal_conv_),
      ones_(config.value_norm ? static_cast<size_t>(config.head_dim) : 0, 1.0f) {}

void Decoder::run(const std::vector<Span>& spans, const std::vector<int64_t>& wanted, Output output,
                  float* out, const InputRecord* record) {
  token_ids_.clear();
  for (const Span& span : spans)
    token_ids_.insert(token_ids_.end(), span.tokens, span.tokens + span.count);
  tokens_ = static_cast<int64_t>(token_ids_.size());
  wanted_ = &wanted;
  output_ = output;
  out_ = out;
  record_ = record;

  const bool decoding = tokens_ <= kDecodeTokens;
  const int threads = decoding ? team_size_.threads() : batch_threads_;
  plan_adapters(spans);
  attention_.plan(spans, pool_.size());
  causal_conv_.plan(spans);
  const double start = clock_seconds();
  pool_.run(threads, [this](Team& team) { forward(team); });
  const double end = clock_seconds();
  if (decoding) {
    int64_t positions = 0;
    for (const Span& span : spans) positions += span.cache->length + span.count;
    team_size_.observe({end, end - start, pool_.slept(), tokens_, positions});
  }
  if (!config_.causal) return;
  for (const Span& span : spans) span.cache->length += span.count;
}

void Decoder::forward(Team& team) {
  const auto each_token = [&](auto&& f) { for_each_token(team, f); };

  each_token([&](int64_t t) { embed(t); });
  if (config_.per_layer_width) make_layer_inputs(team);
  if (config_.streams > 1) widen(team);
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = weights_.layers()[static_cast<size_t>(i)];

    each_token([&](int64_t t) {
      if (layer.stream_router) predict(layer, t);
      normalise(s_.x, layer.attn_norm, s_.h, t);
      record(&InputRecord::qkv, i, s_.h, config_.width, t);
    });
    mix(team, layer, i);
    each_token([&](int64_t t) { add_branch(layer.attn_post_norm, layer.attn_sum_norm, t); });
    if (layer.narrow_in) add_narrow(team, layer);

    feed_forward(team, layer, i);
    each_token([&](int64_t t) {
      add_branch(layer.ffn_post_norm, layer.ffn_sum_norm, t);
      if (layer.stream_router) correct(layer, t);
      if (!layer.input_gate) scale(layer, t);
    });
    if (layer.input_gate) take_layer_input(team, layer, i);
  }
  finish(team);
}

// y = what a layer makes of h across tokens.
void Decoder::mix(Team& team, const Layer& layer, int64_t i) {
  const Activations h{s_.h, s_.blocks, config_.width, tokens_, tokens_, config_.width};
  switch (config_.mixer(i)) {
    case Mixer::kAttention:
      return attend(team, layer, i, h);
    case Mixer::kShortConv:
      return convolve(team, layer, i, h);
    case Mixer::kDeltaNet:
      return recur(team, layer, i, h);
  }
}

// x = embedding[token] * scale and what is added to it, normalised if need be, and the rotary
// angles of the token's position.
void Decoder::embed(int64_t t) {
  float* x = s_.x + t * config_.width;
  weights_.embed(token_ids_[static_cast<size_t>(t)], x);
  if (config_.embedding_scale != 1)
    for (int64_t i = 0; i < config_.width; ++i) x[i] *= config_.embedding_scale;

  if (weights_.positions()) {
    float* row = s_.y + t * config_.width;
    weights_.positions().read(attention_.position(t), row);
    kernels_.add_scaled(x, row, 1.0f, config_.width);
  }
  if (const float* type = weights_.token_type()) kernels_.add_scaled(x, type, 1.0f, config_.width);
  if (weights_.embedding_norm()) norm(x, weights_.embedding_norm(), x);
  const auto position = static_cast<float>(attention_.position(t));
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

// out = norm(x), over the width.
void Decoder::norm(const float* x, const NormWeights& weights, float* out) const {
  const float eps = config_.norm_eps;
  if (config_.norm == Norm::kLayer)
    kernels_.layer_norm(x, weights.weight, weights.bias, eps, config_.width, out);
  else
    kernels_.rms_norm(x, weights.weight, eps, config_.width, out);
}

// h = norm(x), and its quantised form; families that normalise only after a block pass x on.
void Decoder::normalise(const float* x, const NormWeights& weights, float* h, int64_t t) {
  const int64_t n = config_.width;
  if (weights)
    norm(x + t * n, weights, h + t * n);
  else
    std::copy(x + t * n, x + (t + 1) * n, h + t * n);
  quantise(h, n, t, t + 1);
}

// Rows of whole 32s only: narrower inputs occur with float weights, which read the floats.
void Decoder::quantise(const float* x, int64_t cols, int64_t t0, int64_t t1) {
  if (cols % kStep == 0) kernels_.quantize(x, cols, cols, tokens_, t0, t1, s_.blocks);
}

// x = norm(x + scale * norm(y)), where a family has these norms.
void Decoder::add_branch(const NormWeights& post_norm, const NormWeights& sum_norm, int64_t t) {
  const int64_t n = config_.width;
  float* y = s_.y + t * n;
  if (post_norm) norm(y, post_norm, y);
  kernels_.add_scaled(s_.x + t * n, y, config_.residual_scale, n);
  if (sum_norm) norm(s_.x + t * n, sum_norm, s_.x + t * n);
}

// The end of a block in families whose blocks have a factor.
void Decoder::scale(const Layer& layer, int64_t t) {
  if (!layer.scale) return;
  float* const x = s_.x + t * config_.width;
  for (int64_t i = 0; i < config_.width; ++i) x[i] *= *layer.scale;
}

// Calls f(feed-forward block, its share of the rows, begin, end) for the groups [begin, end) of one
// matrix of every block in use: of the one there is, or of those that `shared` the rows. How many
// are is known only when the tokens have chosen, so the pieces are counted for as many as there can
// be.
template <class F>
void Decoder::for_each_expert(Team& team, const std::vector<FeedForward>& blocks, bool shared,
                              Matrix FeedForward::* matrix, F&& f) {
  const Matrix& m = blocks.front().*matrix;
  const int64_t groups = m.groups();
  const int64_t count =
      std::min(static_cast<int64_t>(blocks.size()), tokens_ * config_.ff_rows_per_token());
  const int64_t piece = piece_groups(team, m, count * groups);
  const auto each = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin / groups; i * groups < end; ++i) {
      const int64_t g0 = std::max<int64_t>(begin - i * groups, 0);
      const int64_t g1 = std::min(end - i * groups, groups);
      const FfShare all{0, 0, static_cast<int32_t>(tokens_)};
      const FfShare& share = shared ? s_.shares[i] : all;
      if (share.count) f(blocks[static_cast<size_t>(share.expert)], share, g0, g1);
    }
  };
  const int64_t own = team.own_range(count * groups, piece).first;
  team.for_each(count * groups, piece, each, Ahead(m, shared ? groups : own));
}

// What makes of gate and up the input of the down projection.
Decoder::Gate Decoder::gate_kernel() const {
  switch (config_.activation) {
    case Activation::kSilu:
      return kernels_.silu_mul;
    case Activation::kGeluTanh:
      return kernels_.gelu_mul;
    case Activation::kGeluErf:
      return kernels_.gelu_erf_mul;
    case Activation::kClampedSwiglu:
      return kernels_.clamped_swiglu;
  }
  __builtin_unreachable();
}

// gated = activation(x * gate') * (x * up'), or activation(x * up') without a gate, and its
// quantised form, a slice of rows and columns at a time: the products never reach memory.
void Decoder::expand(Team& team, const std::vector<FeedForward>& blocks, bool shared,
                     const Activations& x) {
  const int64_t n = blocks.front().up.rows;
  const bool erf = config_.activation == Activation::kGeluErf;
  const auto activate = gate_kernel();
  const auto activate_alone = erf ? kernels_.gelu_erf : kernels_.gelu;

  const auto expand_rows = [&](const FeedForward& ff, const FfShare& share, int64_t begin,
                               int64_t end) {
    alignas(64) float gate[kSliceFloats], up[kSliceFloats];
    const int64_t tokens = std::min<int64_t>(share.count, kSliceTokens);
    const int64_t slice = kSliceFloats / tokens / (2 * kGroupRows) * 2;  // groups
    const int64_t share_end = share.first + share.count;
    for (int64_t t = share.first; t < share_end; t += tokens) {
      const Activations part = x.slice(t, std::min(tokens, share_end - t));
      for (int64_t g = begin; g < end; g += slice) {
        const int64_t last = std::min(end, g + slice), row = g * kGroupRows;
        const int64_t rows = std::min(n, last * kGroupRows) - row;
        if (config_.gated) {
          multiply(ff.gate, g, last, part, gate, rows);
          multiply(ff.up, g, last, part, up, rows);
          adapt(ff.gate, 0, g, last, t, part.tokens, gate, rows);
          adapt(ff.up, 1, g, last, t, part.tokens, up, rows);
          activate(gate, up, part.tokens * rows);
        } else {
          multiply(ff.up, g, last, part, gate, rows);
          adapt(ff.up, 1, g, last, t, part.tokens, gate, rows);
          activate_alone(gate, part.tokens * rows);
        }
        if (ff.down.quantised())
          kernels_.quantize(gate, rows, rows, x.tokens, 0, part.tokens,
                            s_.ff_blocks + row / kStep * x.tokens + t);
        if (!ff.down.quantised() || !adapted_.empty() || record_)
          for (int64_t i = 0; i < part.tokens; ++i)
            std::copy_n(gate + i * rows, rows, s_.gated + (t + i) * n + row);
      }
    }
  };
  const std::array<const Matrix*, 2> matrices{&blocks.front().gate, &blocks.front().up};
  if (!adapted_.empty()) reduce(team, x, matrices);
  for_each_expert(team, blocks, shared, FeedForward::first(config_), expand_rows);
}

// out = gated * down', each row by its expert's matrix.
void Decoder::contract(Team& team, const Layer& layer, const Activations& gated, float* out) {
  const int64_t n = config_.width;
  const auto contract_rows = [&](const FeedForward& ff, const FfShare& share, int64_t g0,
                                 int64_t g1) {
    multiply(ff.down, g0, g1, gated.slice(share.first, share.count),
             out + share.first * n + g0 * kGroupRows, n);
  };
  for_each_expert(team, layer.experts, true, &FeedForward::down, contract_rows);
}

// out = x * matrix' + bias for matrices that share their input.
void Decoder::project(Team& team, const Activations& x, std::initializer_list<Product> products) {
  int64_t groups = 0;
  for (const Product& p : products) groups += p.matrix.groups();
  const int64_t piece = piece_groups(team, products.begin()->matrix, groups);

  const Matrix* own = nullptr;  // where this thread will begin
  int64_t own_begin = team.own_range(groups, piece).first;
  for (const Product& p : products) {
    own = &p.matrix;
    if (own_begin < own->groups()) break;
    own_begin -= own->groups();
  }
  if (!adapted_.empty()) {
    std::array<const Matrix*, kSharing> matrices{};
    std::transform(products.begin(), products.end(), matrices.begin(),
                   [](const Product& p) { return &p.matrix; });
    reduce(team, x, {matrices.data(), products.size()});
  }
  team.for_each(
      groups, piece,
      [&](int64_t begin, int64_t end) {
        int64_t slot = 0;
        for (const Product& p : products) {
          const int64_t g0 = std::max<int64_t>(begin, 0), g1 = std::min(end, p.matrix.groups());
          float* const out = p.out + g0 * kGroupRows;
          if (g0 < g1) {
            multiply(p.matrix, g0, g1, x, out, p.matrix.rows);
            adapt(p.matrix, slot, g0, g1, 0, x.tokens, out, p.matrix.rows);
          }
          ++slot;
          begin -= p.matrix.groups();
          end -= p.matrix.groups();
        }
      },
      Ahead(*own, own_begin));
}

// The rows of groups [g0, g1) of x * matrix' + bias, from out[0] on; out (tokens, stride).
void Decoder::multiply(const Matrix& m, int64_t g0, int64_t g1, const Activations& x, float* out,
                       int64_t stride) {
  const int64_t row = g0 * kGroupRows, rows = std::min(m.rows, g1 * kGroupRows) - row;
  kernels_.matmul[m.type](m.packed + g0 * group_bytes(m), rows, 0, g1 - g0, x, out, stride);
  if (!m.bias) return;
  for (int64_t t = 0; t < x.tokens; ++t)
    kernels_.add_scaled(out + t * stride, m.bias + row, 1.0f, rows);
}

// The tokens of the step that use adapters, and room for what these reduce them to.
void Decoder::plan_adapters(const std::vector<Span>& spans) {
  adapted_.clear();
  int64_t first = 0, floats = 0;
  for (const Span& span : spans) {
    for (const AdapterUse& use : span.cache->adapters)
      for (int64_t t = 0; t < span.count; t += kAdaptedTokens) {
        const int64_t count = std::min(kAdaptedTokens, span.count - t);
        adapted_.push_back({&use, first + t, count, nullptr});
        floats += kSharing * count * use.adapter->max_rank();
      }
    first += span.count;
  }
  reduced_.resize(static_cast<size_t>(floats));
  float* next = reduced_.data();
  for (Adapted& adapted : adapted_) {
    adapted.reduced = next;
    next += kSharing * adapted.count * adapted.use->adapter->max_rank();
  }
}

// scale * A x for the adapters' parts of matrices that share the input x.
void Decoder::reduce(Team& team, const Activations& x, std::span<const Matrix* const> matrices) {
  const auto sharing = static_cast<int64_t>(matrices.size());
  team.for_each(static_cast<int64_t>(adapted_.size()) * sharing, 1, [&](int64_t i, int64_t) {
    const Adapted& adapted = adapted_[static_cast<size_t>(i / sharing)];
    const int64_t slot = i % sharing;
    const LowRank* change = adapted.use->adapter->find(*matrices[static_cast<size_t>(slot)]);
    if (!change) return;
    const Matrix& a = change->a;
    float* const out = adapted.reduced + slot * adapted.count * adapted.use->adapter->max_rank();
    multiply(a, 0, a.groups(), x.slice(adapted.first, adapted.count), out, a.rows);
    for (int64_t j = 0; j < adapted.count * a.rows; ++j) out[j] *= adapted.use->scale;
  });
}

// out += B reduced, for the rows of groups [g0, g1) of a matrix and the tokens of the step
// [first, first + count) that use adapters; out (count, stride).
void Decoder::adapt(const Matrix& m, int64_t slot, int64_t g0, int64_t g1, int64_t first,
                    int64_t count, float* out, int64_t stride) {
  constexpr int64_t kGroups = 8;
  alignas(64) float change[kAdaptedTokens * kGroups * kGroupRows];
  for (const Adapted& adapted : adapted_) {
    const int64_t begin = std::max(first, adapted.first);
    const int64_t tokens = std::min(first + count, adapted.first + adapted.count) - begin;
    const LowRank* low = tokens > 0 ? adapted.use->adapter->find(m) : nullptr;
    if (!low) continue;
    const int64_t rank = low->b.cols;
    const float* const reduced = adapted.reduced +
                                 slot * adapted.count * adapted.use->adapter->max_rank() +
                                 (begin - adapted.first) * rank;
    const Activations x{reduced, nullptr, rank, tokens, tokens, rank};
    for (int64_t g = g0; g < g1; g += kGroups) {
      const int64_t last = std::min(g1, g + kGroups), row = (g - g0) * kGroupRows;
      const int64_t rows = std::min(m.rows, last * kGroupRows) - g * kGroupRows;
      multiply(low->b, g, last, x, change, rows);
      for (int64_t t = 0; t < tokens; ++t)
        kernels_.add_scaled(out + (begin - first + t) * stride + row, change + t * rows, 1.0f,
                            rows);
    }
  }
}

// The wanted rows: out = norm(x), or the logits, scaled and capped.
void Decoder::finish(Team& team) {
  const ModelConfig& c = config_;
  const auto rows = static_cast<int64_t>(wanted_->size());
  if (rows == 0) return;
  if (config_.streams > 1) narrow(team);
  float* normed = output_ == Output::kHidden ? out_ : s_.h;
  team.for_each(rows, 1, [&](int64_t i, int64_t) {
    const float* x = s_.x + (*wanted_)[static_cast<size_t>(i)] * c.width;
    if (weights_.output_norm())
      norm(x, weights_.output_norm(), normed + i * c.width);
    else
      std::copy_n(x, c.width, normed + i * c.width);
    if (output_ == Output::kLogits && weights_.output().quantised())
      kernels_.quantize(normed, c.width, c.width, rows, i, i + 1, s_.blocks);
  });
  if (output_ == Output::kHidden) return;

  project(team, {s_.h, s_.blocks, c.width, rows, rows, c.width}, {{weights_.output(), out_}});
  if (c.output_scale != 1 || c.output_softcap > 0) {
    team.for_each(rows * c.vocab_size, 4096, [&](int64_t begin, int64_t end) {
      kernels_.scale_and_cap(out_ + begin, c.output_scale, c.output_softcap, end - begin);
    });
  }
}

}  // namespace edgeinfer
