// Attention as a layer's mixer.
#include "engine/decoder.h"

#include <algorithm>
#include <utility>

namespace edgeinfer {

// y = O attention(Q h, K h, V h)
void Decoder::attend(Team& team, const Layer& layer, int64_t i, const Activations& h) {
  const int64_t n = config_.q_width_of(i);
  float* const queries = config_.attention_gate ? s_.projected : s_.q;
  if (!layer.k)  // another layer's are read
    project(team, h, {{layer.q, queries}});
  else if (!layer.v)
    project(team, h, {{layer.q, queries}, {layer.k, s_.k}});
  else
    project(team, h, {{layer.q, queries}, {layer.k, s_.k}, {layer.v, s_.v}});
  for_each_token(team, [&](int64_t t) {
    if (config_.attention_gate) take_queries(t);
    rotate_and_store(i, t);
  });
  attention_.run(team, i);
  for_each_token(team, [&](int64_t t) {
    attention_.merge(i, t, layer.sinks, s_.q + t * n);
    if (config_.attention_gate) gate_heads(t);
    record(&InputRecord::o, i, s_.q, n, t);
    quantise(s_.q, n, t, t + 1);
  });
  project(team, {s_.q, s_.blocks, n, tokens_, tokens_, n}, {{layer.o, s_.y}});
}

// Each head's query lies before its gate.
void Decoder::take_queries(int64_t t) {
  const int64_t dim = config_.head_dim;
  for (int64_t head = t * config_.heads; head < (t + 1) * config_.heads; ++head)
    std::copy_n(s_.projected + 2 * head * dim, dim, s_.q + head * dim);
}

void Decoder::gate_heads(int64_t t) {
  const int64_t dim = config_.head_dim;
  for (int64_t head = t * config_.heads; head < (t + 1) * config_.heads; ++head)
    kernels_.sigmoid_mul(s_.q + head * dim, s_.projected + (2 * head + 1) * dim, dim);
}

// Queries and keys are normalised and turned, and handed to attention.
void Decoder::rotate_and_store(int64_t index, int64_t t) {
  const ModelConfig& c = config_;
  const Layer& layer = weights_.layers()[static_cast<size_t>(index)];
  const int64_t dim = c.head_dim_of(index), width = c.kv_width_of(index);
  const int64_t kv_heads = layer.k ? c.kv_heads_of(index) : 0;  // of its own
  float* q = s_.q + t * c.heads * dim;
  float* k = s_.k + t * width;
  float* v = s_.v + t * width;
  if (layer.k && !layer.v) std::copy_n(k, width, v);

  const auto norm_heads = [&](float* rows, int64_t heads, const float* weight) {
    const int64_t n = c.qk_norm == QkNorm::kFull ? heads * dim : dim;
    for (float* row = rows; row != rows + heads * dim; row += n)
      kernels_.rms_norm(row, weight, c.norm_eps, n, row);
  };
  if (c.qk_norm != QkNorm::kNone) {
    norm_heads(q, c.heads, layer.q_norm);
    norm_heads(k, kv_heads, layer.k_norm);
  }
  if (c.value_norm)
    for (float* row = v; row != v + kv_heads * dim; row += dim)
      kernels_.rms_norm(row, ones_.data(), c.norm_eps, dim, row);
  if (const int32_t table = c.layer_rope[static_cast<size_t>(index)]; table >= 0) {
    const auto& frequencies = c.rope_tables[static_cast<size_t>(table)].inverse_frequencies;
    const auto rope_dim = static_cast<int64_t>(2 * frequencies.size());
    const int64_t row = (table * s_.batch + t) * (c.head_dim / 2);
    for (auto [rows, heads] : {std::pair{q, c.heads}, std::pair{k, kv_heads}})
      kernels_.rope(rows, heads, dim, rope_dim, s_.cosines + row, s_.sines + row,
                    c.rope_neighbours);
  }
  attention_.store(index, t, q, k, v);
}

}  // namespace edgeinfer
