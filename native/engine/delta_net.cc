#include "engine/delta_net.h"

#include <algorithm>
#include <cmath>

namespace edgeinfer {
namespace {

constexpr float kLengthEps = 1e-6f;  // added to the square of a key's length

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }
float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

DeltaNet::DeltaNet(const ModelConfig& config, const KernelSet& kernels, const Scratch& scratch,
                   const CausalConv& conv)
    : config_(config), kernels_(kernels), s_(scratch), conv_(conv) {
  if (!config.has(Mixer::kDeltaNet)) return;
  const auto dim = static_cast<float>(config.delta_dim);
  // x / |x| is x / rms(x) / sqrt(dim); queries are divided by sqrt(dim) besides.
  key_norm_.assign(static_cast<size_t>(config.delta_dim), 1 / std::sqrt(dim));
  query_norm_.assign(static_cast<size_t>(config.delta_dim), 1 / dim);
}

Channels DeltaNet::inputs() const {
  const int64_t n = config_.conv_width(Mixer::kDeltaNet);
  return {s_.projected, n, n};
}

void DeltaNet::prepare(const Layer& layer, int64_t t, int64_t tokens) const {
  const int64_t dim = config_.delta_dim, heads = config_.delta_heads;
  const float eps = kLengthEps / static_cast<float>(dim);
  float* const q = s_.convolved + t * config_.conv_width(Mixer::kDeltaNet);
  float* const k = q + key_width();
  for (int64_t i = 0; i < key_width(); i += dim) {
    kernels_.rms_norm(q + i, query_norm_.data(), eps, dim, q + i);
    kernels_.rms_norm(k + i, key_norm_.data(), eps, dim, k + i);
  }
  const int64_t sharing = heads / config_.delta_key_heads;
  for (int64_t head = 0; head < heads; ++head) {
    // One matrix for both has the betas and the alphas of each key head side by side.
    const int64_t together = 2 * t * heads + head / sharing * 2 * sharing + head % sharing;
    const int64_t apart = t * heads + head;
    const float beta = s_.steps[layer.beta_alpha ? together : apart];
    const float alpha = s_.steps[layer.beta_alpha ? together + sharing : tokens * heads + apart];
    s_.beta[apart] = sigmoid(beta);
    s_.decay[apart] = std::exp(layer.delta_a[head] * softplus(alpha + layer.delta_dt[head]));
  }
}

void DeltaNet::run(Team& team, int64_t layer) const {
  const int64_t tiles = config_.delta_dim / kDeltaTile, each = config_.delta_heads * tiles;
  const auto spans = static_cast<int64_t>(conv_.spans().size());
  team.for_each(spans * each, tiles, [this, layer, tiles, each](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t span = i / each, head = i % each / tiles;
      run(layer, conv_.spans()[static_cast<size_t>(span)], conv_.first(span), head, i % tiles);
    }
  });
}

void DeltaNet::run(int64_t layer, const Span& span, int64_t first, int64_t head,
                   int64_t tile) const {
  const int64_t dim = config_.delta_dim, heads = config_.delta_heads;
  const int64_t stride = config_.conv_width(Mixer::kDeltaNet);
  const int64_t key_head = config_.delta_tiled ? head % config_.delta_key_heads
                                               : head / (heads / config_.delta_key_heads);
  RecurrentState& state = span.cache->state;
  const int64_t place = (head * dim + tile * kDeltaTile) * dim, column = tile * kDeltaTile;
  float* const matrix = state.matrices(state.current(), layer) + place;
  const auto recur = [&](int64_t begin, int64_t end) {
    if (begin == end) return;
    const int64_t t = first + begin;
    const float* const q = s_.convolved + t * stride + key_head * dim;
    kernels_.delta_rule({
        .q = q,
        .k = q + key_width(),
        .v = s_.convolved + t * stride + 2 * key_width() + head * dim + column,
        .stride = stride,
        .decay = s_.decay + t * heads + head,
        .beta = s_.beta + t * heads + head,
        .step_stride = heads,
        .tokens = end - begin,
        .dim = dim,
        .state = matrix,
        .out = s_.q + (t * heads + head) * dim + column,
        .out_stride = heads * dim,
    });
  };
  recur(0, span.mark);
  if (float* const marked = state.marked())
    std::copy_n(matrix, dim * kDeltaTile, state.matrices(marked, layer) + place);
  recur(span.mark, span.count);
}

void DeltaNet::gate(const Layer& layer, int64_t t) const {
  const int64_t dim = config_.delta_dim, n = config_.delta_heads * dim;
  float* const out = s_.q + t * n;
  for (int64_t i = 0; i < n; i += dim)
    kernels_.rms_norm(out + i, layer.delta_norm, config_.norm_eps, dim, out + i);
  kernels_.silu_mul(s_.gate + t * n, out, n);
}

}  // namespace edgeinfer
