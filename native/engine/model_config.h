// ModelConfig: one model's numbers, the same fields as edgeinfer.arch.config.ModelConfig.
//
// Python resolves everything a family leaves to convention into plain numbers per layer, so
// nothing in the engine asks for a family's name.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace edgeinfer {

enum class Activation { kSilu, kGeluTanh, kGeluErf, kClampedSwiglu };
enum class Norm { kRms, kLayer };
enum class QkNorm { kNone, kHead, kFull };
/// How the scores of experts become weights: a softmax of all, or a sigmoid of each, where a bias
/// of the expert has a say in which are chosen.
enum class Router { kSoftmax, kSigmoid };
/// What mixes the tokens of a layer: attention to a cache, or a recurrence with a running state.
enum class Mixer { kAttention, kShortConv, kDeltaNet };

/// angle = position * inverse_frequencies[i]; magnitude multiplies sine and cosine.
struct RopeTable {
  std::vector<float> inverse_frequencies;  // (rope_dim / 2,)
  float magnitude = 1;
};

/// Residual streams, at most.
inline constexpr int64_t kMostStreams = 8;

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t positions = 0;    // rows of a learned position table, 0 for none
  int64_t token_types = 0;  // rows of a table whose first is added to every token, 0 for none
  // Tokens see those before them; else all of their text, which is one step, and there are no
  // logits.
  bool causal = true;
  int64_t layers = 0;
  int64_t width = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ff_width = 0;      // of each expert where there are experts
  int64_t experts = 0;       // 0: one feed-forward block that all tokens take
  int64_t experts_used = 0;  // by a token
  Router router = Router::kSoftmax;
  bool expert_weights_norm = true;
  float expert_weights_scale = 1;
  int64_t dense_layers = 0;  // the first layers, which have one block in place of experts
  float norm_eps = 0;
  Norm norm = Norm::kRms;
  bool gated = true;  // feed-forward: activation(gate) * up, else activation(up)
  Activation activation = Activation::kSilu;
  QkNorm qk_norm = QkNorm::kNone;
  bool rope_neighbours = false;
  std::vector<RopeTable> rope_tables;
  std::vector<int32_t> layer_rope;    // (layers,) index into rope_tables, -1 for none
  std::vector<int32_t> layer_window;  // (layers,) tokens, 0 for none
  std::vector<Mixer> layer_mixer;     // (layers,); empty: attention in all
  int64_t conv_taps = 0;              // of the causal convolution of recurrent layers
  int64_t delta_heads = 0;            // of values, in gated delta nets
  int64_t delta_key_heads = 0;        // each serves delta_heads / delta_key_heads of them
  int64_t delta_dim = 0;              // of keys and values
  bool delta_tiled = false;           // value head h has key head h % delta_key_heads, else
                                      // neighbours share one
  bool attention_gate = false;        // beside each head's query there is a gate of its output
  bool shared_expert = false;         // one that all tokens take, weighted by a gate of its own
  // Of a block that all tokens take: in the first `dense_layers`, or beside the experts of all if
  // there are no such layers; 0 for none.
  int64_t dense_ff_width = 0;
  // (layers,) where layers differ; the numbers above are the largest then. Empty: all alike.
  std::vector<int64_t> layer_head_dim, layer_kv_heads, layer_ff_width;
  std::vector<int32_t> layer_kv;         // (layers,) whose keys and values each reads; empty: own
  std::vector<bool> layer_key_is_value;  // (layers,) keys are values, too; empty: in none
  bool value_norm = false;               // RMS norm of each head's values, without weights
  int64_t per_layer_width = 0;           // of the inputs that layers have of their own, 0 for none
  int64_t streams = 1;                   // residual streams; layers compute the first one
  int64_t laurel_rank = 0;               // of what is added beside attention, 0 for nothing
  // (layers,) standard deviations above the mean from which on gates count, -inf: all; empty: all.
  std::vector<float> layer_cutoff;
  float attention_scale = 0;
  float attention_softcap = 0;  // 0 is off
  float output_softcap = 0;     // 0 is off
  float embedding_scale = 1;
  float residual_scale = 1;
  float output_scale = 1;
  bool tied_output = false;

  int64_t head_dim_of(int64_t layer) const {
    return layer_head_dim.empty() ? head_dim : layer_head_dim[static_cast<size_t>(layer)];
  }
  int64_t kv_heads_of(int64_t layer) const {
    return layer_kv_heads.empty() ? kv_heads : layer_kv_heads[static_cast<size_t>(layer)];
  }
  bool has_experts(int64_t layer) const { return experts && layer >= dense_layers; }
  bool has_beside() const { return dense_ff_width && !dense_layers; }
  /// Of each block; where there are experts, of each of these.
  int64_t ff_width_of(int64_t layer) const {
    if (layer < dense_layers) return dense_ff_width;
    return layer_ff_width.empty() ? ff_width : layer_ff_width[static_cast<size_t>(layer)];
  }
  int64_t q_width_of(int64_t layer) const { return heads * head_dim_of(layer); }
  int64_t kv_width_of(int64_t layer) const { return kv_heads_of(layer) * head_dim_of(layer); }
  /// The layer whose keys and values a layer with attention reads.
  int64_t kv_of(int64_t layer) const {
    return layer_kv.empty() ? layer : layer_kv[static_cast<size_t>(layer)];
  }
  bool has_kv(int64_t layer) const {
    return mixer(layer) == Mixer::kAttention && kv_of(layer) == layer;
  }
  bool key_is_value(int64_t layer) const {
    return !layer_key_is_value.empty() && layer_key_is_value[static_cast<size_t>(layer)];
  }

  bool has_sparse_gates(int64_t layer) const {
    return !layer_cutoff.empty() && std::isfinite(layer_cutoff[static_cast<size_t>(layer)]);
  }
  bool has_sparse_gates() const {
    for (int64_t i = 0; i < layers; ++i)
      if (has_sparse_gates(i)) return true;
    return false;
  }

  Mixer mixer(int64_t layer) const {
    return layer_mixer.empty() ? Mixer::kAttention : layer_mixer[static_cast<size_t>(layer)];
  }
  bool has(Mixer kind) const { return layers_with(kind) > 0; }
  int64_t layers_with(Mixer kind) const {
    if (layer_mixer.empty()) return kind == Mixer::kAttention ? layers : 0;
    return std::count(layer_mixer.begin(), layer_mixer.end(), kind);
  }

  /// Channels that the causal convolution of a layer runs over; 0 where it has none.
  int64_t conv_width(Mixer kind) const {
    if (kind == Mixer::kShortConv) return width;
    return kind == Mixer::kDeltaNet ? (2 * delta_key_heads + delta_heads) * delta_dim : 0;
  }
  /// What the first projection of recurrent layers, or of queries with gates, makes, at most.
  int64_t projected_width() const {
    return std::max({has(Mixer::kShortConv) ? 3 * width : 0,
                     has(Mixer::kDeltaNet) ? conv_width(Mixer::kDeltaNet) : 0,
                     attention_gate ? 2 * q_width() : 0});
  }
  /// What a mixer hands to its output projection.
  int64_t mixed_width(Mixer kind) const {
    if (kind == Mixer::kDeltaNet) return delta_heads * delta_dim;
    return kind == Mixer::kAttention ? q_width() : width;
  }
  /// The widest of all layers'.
  int64_t mixed_width() const {
    int64_t widest = q_width();
    for (const Mixer kind : layer_mixer) widest = std::max(widest, mixed_width(kind));
    return widest;
  }

  /// Feed-forward blocks that a token goes through.
  int64_t ff_rows_per_token() const { return experts ? experts_used + shared_expert : 1; }
  /// All that a token could go through; the shared one is the last.
  int64_t ff_blocks() const { return experts + shared_expert; }
  int64_t q_width() const { return heads * head_dim; }
  /// The widest of all layers'.
  int64_t kv_width() const {
    int64_t widest = 0;
    for (int64_t i = 0; i < layers; ++i) widest = std::max(widest, kv_width_of(i));
    return widest;
  }
  /// Query heads that share a KV head, at most.
  int64_t most_sharing() const {
    int64_t fewest = kv_heads;
    for (const int64_t count : layer_kv_heads) fewest = std::min(fewest, count);
    return heads / fewest;
  }
};

}  // namespace edgeinfer
