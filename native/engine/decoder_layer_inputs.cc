// Inputs that every layer has of its own: of a table's row for the token, and of its embedding.
//
// Gemma 3n's and Gemma 4's per-layer embeddings. The table is large, but a token takes one row.
#include "engine/decoder.h"

#include <cmath>

namespace edgeinfer {

// inputs = (norm(P x / sqrt(width)) + sqrt(n) * row) / sqrt(2), for every layer n numbers.
void Decoder::make_layer_inputs(Team& team) {
  const int64_t width = config_.width, n = config_.per_layer_width, all = config_.layers * n;
  for_each_token(team, [&](int64_t t) { quantise(s_.x, width, t, t + 1); });
  project(team, {s_.x, s_.blocks, width, tokens_, tokens_, width},
          {{weights_.layer_inputs_projection(), s_.layer_inputs}});
  const float down = 1 / std::sqrt(static_cast<float>(width));
  const float up = std::sqrt(static_cast<float>(n)), half = std::sqrt(0.5f);
  for_each_token(team, [&](int64_t t) {
    float* const inputs = s_.layer_inputs + t * all;
    float* const row = s_.layer_rows + t * all;
    weights_.layer_inputs().read(token_ids_[static_cast<size_t>(t)], row);
    for (int64_t j = 0; j < all; ++j) inputs[j] *= down;
    for (int64_t j = 0; j < all; j += n)
      kernels_.rms_norm(inputs + j, weights_.layer_inputs_norm(), config_.norm_eps, n, inputs + j);
    for (int64_t j = 0; j < all; ++j) inputs[j] = (inputs[j] + up * row[j]) * half;
  });
}

// x = scale * (x + norm(P (activation(G x) * input))), or all streams but the first get that added.
void Decoder::take_layer_input(Team& team, const Layer& layer, int64_t i) {
  const int64_t width = config_.width, n = config_.per_layer_width;
  for_each_token(team, [&](int64_t t) {
    record(&InputRecord::input_gate, i, s_.x, width, t);
    quantise(s_.x, width, t, t + 1);
  });
  project(team, {s_.x, s_.blocks, width, tokens_, tokens_, width},
          {{layer.input_gate, s_.layer_gate}});
  const auto activate = gate_kernel();
  for_each_token(team, [&](int64_t t) {
    float* const gate = s_.layer_gate + t * n;
    activate(gate, s_.layer_inputs + (t * config_.layers + i) * n, n);
    record(&InputRecord::input_proj, i, s_.layer_gate, n, t);
    quantise(s_.layer_gate, n, t, t + 1);
  });
  project(team, {s_.layer_gate, s_.blocks, n, tokens_, tokens_, n}, {{layer.input_proj, s_.y}});
  for_each_token(team, [&](int64_t t) {
    add_branch(layer.input_post_norm, {}, t);
    for (int64_t j = 1; j < config_.streams; ++j)
      kernels_.add_scaled(stream(j, t), s_.y + t * width, 1.0f, width);
    scale(layer, t);
  });
}

}  // namespace edgeinfer
