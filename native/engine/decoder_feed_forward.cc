// A layer's feed-forward blocks: one, a mixture of experts, or both.
#include "engine/decoder.h"

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
      if (layer.router)
        record(&InputRecord::dense_down, i, s_.gated, n, t);
      else
        record_gated(layer, i, t);
    });
  }
  project(team, {s_.gated, s_.ff_blocks, n, tokens_, tokens_, n}, {{blocks.front().down, s_.y}});
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
