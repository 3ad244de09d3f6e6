// A layer's feed-forward blocks: one, a mixture of experts, or both.
#include "engine/decoder.h"

#include <algorithm>
#include <cmath>

namespace edgeinfer {

// y = what a layer makes of x token by token.
void Decoder::feed_forward(Team& team, const Layer& layer, int64_t i) {
  const Activations h{s_.h, s_.blocks, config_.width, tokens_, tokens_, config_.width};
  if (!layer.beside.empty()) return dense_and_mixture(team, layer, i, h);
  for_each_token(team, [&](int64_t t) {
    normalise(s_.x, layer.ffn_norm, s_.h, t);
    record(&InputRecord::ffn, i, s_.h, config_.width, t);
  });
  if (config_.has_sparse_gates(i)) return sparse(team, layer, i, h);
  if (!layer.router) return dense(team, layer, i, layer.experts);
  project(team, h, {{layer.router, s_.router}});
  if (layer.shared_gate) project(team, h, {{layer.shared_gate, s_.shared}});
  for_each_token(team, [&](int64_t t) { choose_experts(layer, t); });
  mixture(team, layer, i);
}

// y = the block of all tokens, of h.
void Decoder::dense(Team& team, const Layer& layer, int64_t i,
                    const std::vector<FeedForward>& blocks) {
  const int64_t n = blocks.front().up.rows;
  expand(team, blocks, false, {s_.h, s_.blocks, config_.width, tokens_, tokens_, config_.width});
  if (record_) {
    for_each_token(team, [&](int64_t t) {
      if (config_.dense_ff_width)
        record(&InputRecord::dense_down, i, s_.gated, n, t);
      else
        record_gated(layer, i, t);
    });
  }
  project(team, {s_.gated, s_.ff_blocks, n, tokens_, tokens_, n}, {{blocks.front().down, s_.y}});
}

// y = the block of all tokens, of h; of its gates only those count that are so many standard
// deviations above their mean, less that much: about the largest few per cent (Gemma 3n).
void Decoder::sparse(Team& team, const Layer& layer, int64_t i, const Activations& h) {
  const FeedForward& ff = layer.experts.front();
  const int64_t n = ff.up.rows;
  const float cutoff = config_.layer_cutoff[static_cast<size_t>(i)];
  const auto activate = gate_kernel();
  project(team, h, {{ff.gate, s_.gated}, {ff.up, s_.up}});
  for_each_token(team, [&](int64_t t) {
    float* const gate = s_.gated + t * n;
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < n; ++j) sum += gate[j];
    const auto mean = static_cast<float>(sum / static_cast<double>(n));
    for (int64_t j = 0; j < n; ++j) squares += (gate[j] - mean) * (gate[j] - mean);
    const auto deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(n)));
    const float least = mean + cutoff * deviation;
    for (int64_t j = 0; j < n; ++j) gate[j] = std::max(gate[j] - least, 0.0f);
    activate(gate, s_.up + t * n, n);
    if (ff.down.quantised()) kernels_.quantize(s_.gated, n, n, tokens_, t, t + 1, s_.ff_blocks);
    if (record_) record_gated(layer, i, t);
  });
  project(team, {s_.gated, s_.ff_blocks, n, tokens_, tokens_, n}, {{ff.down, s_.y}});
}

// y = what the chosen experts make of h.
void Decoder::mixture(Team& team, const Layer& layer, int64_t i) {
  const int64_t rows = tokens_ * config_.ff_rows_per_token(), n = config_.ff_width;
  team.for_each(1, 1, [&](int64_t, int64_t) { sort_by_expert(); });
  for_each_token(team, [&](int64_t t) { gather(layer, t); });
  expand(team, layer.experts, true,
         {s_.ff_x, s_.ff_x_blocks, config_.width, rows, rows, config_.width});
  if (record_) for_each_token(team, [&](int64_t t) { record_gated(layer, i, t); });
  contract(team, layer, {s_.gated, s_.ff_blocks, n, rows, rows, n}, s_.ff_x);
  for_each_token(team, [&](int64_t t) { add_experts(t); });
}

// y = norm(block(norm(x))) + norm(experts(norm(x))); the router reads x by a norm of its own.
void Decoder::dense_and_mixture(Team& team, const Layer& layer, int64_t i, const Activations& h) {
  const int64_t n = config_.width;
  for_each_token(team, [&](int64_t t) {
    normalise(s_.x, layer.ffn_norm, s_.h, t);
    record(&InputRecord::dense, i, s_.h, n, t);
  });
  dense(team, layer, i, layer.beside);
  for_each_token(team, [&](int64_t t) {
    norm(s_.y + t * n, layer.beside_post_norm, s_.beside + t * n);
    normalise(s_.x, layer.router_norm, s_.h, t);
  });
  project(team, h, {{layer.router, s_.router}});
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  for_each_token(team, [&](int64_t t) {
    float* const scores = s_.router + t * config_.experts;
    for (int64_t e = 0; e < config_.experts; ++e) scores[e] *= scale;
    choose_experts(layer, t);
    normalise(s_.x, layer.experts_norm, s_.h, t);
    record(&InputRecord::ffn, i, s_.h, n, t);
  });
  mixture(team, layer, i);
  for_each_token(team, [&](int64_t t) {
    float* const y = s_.y + t * n;
    norm(y, layer.experts_post_norm, y);
    kernels_.add_scaled(y, s_.beside + t * n, 1.0f, n);
  });
}

}  // namespace edgeinfer
