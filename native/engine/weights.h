// Weights: every tensor of a model, packed once at load into one region of memory.
//
// The matrices lie in the layout the kernels want (quant/packed.h), in 2 MB pages where the
// system grants them. The threads read the file through small buffers and first touch the memory
// that they will read, so the resident peak of a load is the packed size and a megabyte a thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/memory_region.h"
#include "core/thread_pool.h"
#include "engine/model_config.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// Where a tensor lies: `rows` consecutive rows of `cols` values that start at `offset`.
/// Vectors have one row.
struct TensorSource {
  std::string name;  // canonical: "blk.0.attn_q.weight"
  std::string path;
  QuantType type = kF32;
  uint64_t offset = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

/// A matrix of which single rows are looked up, as it is in the file; null where there is none.
struct Table {
  const uint8_t* rows = nullptr;
  QuantType type = kF32;
  int64_t cols = 0;

  explicit operator bool() const { return rows != nullptr; }
  void read(int64_t row, float* out) const;
};

/// A packed matrix: y[row] = sum_k w[row][k] x[k].
struct Matrix {
  const uint8_t* packed = nullptr;
  QuantType type = kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const float* bias = nullptr;  // (rows,) or null
  int32_t adaptable = -1;       // its number among those that adapters may change

  explicit operator bool() const { return packed != nullptr; }
  int64_t groups() const { return (rows + kGroupRows - 1) / kGroupRows; }
  bool quantised() const;
};

struct FeedForward {
  Matrix gate, up, down;  // gate is null where the block has none

  /// The matrix that a block begins with.
  static Matrix FeedForward::* first(const ModelConfig& c) {
    return c.gated ? &FeedForward::gate : &FeedForward::up;
  }
};

/// A norm over the width; null where a family does not have it.
struct NormWeights {
  const float* weight = nullptr;  // (width,)
  const float* bias = nullptr;    // (width,) of a layer norm

  explicit operator bool() const { return weight != nullptr; }
};

/// Null vectors are absent: a norm that a family does not have is skipped.
struct Layer {
  NormWeights attn_norm;             // before attention
  NormWeights attn_post_norm;        // after it
  NormWeights attn_sum_norm;         // of the residual stream, once it is added
  NormWeights ffn_norm;              // before the feed-forward block
  NormWeights ffn_post_norm;         // after it
  NormWeights ffn_sum_norm;          // of the residual stream, once it is added
  const float* q_norm;               // (head_dim,) or (q_width,)
  const float* k_norm;               // (head_dim,) or (kv_width,)
  const float* sinks;                // (heads,) scores without a key
  Matrix q, k, v, o;                 // of attention
  Matrix mix_in, mix_out;            // of a recurrent mixer
  const float* conv;                 // (conv_taps, channels)
  Matrix delta_gate;                 // (mixed_width, width)
  Matrix beta_alpha;                 // (2 * delta_heads, width), or these apart:
  Matrix beta, alpha;                // (delta_heads, width)
  const float* delta_a;              // (delta_heads,) how fast each forgets, below 0
  const float* delta_dt;             // (delta_heads,)
  const float* delta_norm;           // (delta_dim,)
  Matrix router;                     // (experts, width); null without experts
  std::vector<FeedForward> experts;  // or the one block that all tokens take; the shared one last
  Matrix shared_gate;                // (1, width) of the shared expert
  const float* expert_scale;         // (experts,) factors of what they make
  const float* expert_bias;          // (experts,) added to their weights to choose by
  std::vector<FeedForward> beside;   // one that all tokens take beside the experts, and norms:
  NormWeights beside_post_norm;      // after it
  NormWeights router_norm;           // before the router
  NormWeights experts_norm;          // before the experts
  NormWeights experts_post_norm;     // after them
  Matrix input_gate;                 // (per_layer_width, width) of the layer's own input
  Matrix input_proj;                 // (width, per_layer_width)
  NormWeights input_post_norm;
  const float* scale;  // (1,) of what the layer makes
  // Of several residual streams (decoder_streams.cc).
  Matrix stream_router;          // (streams, width)
  NormWeights stream_norm;       // before it
  const float* predict_coef;     // (streams, streams * streams) by the router's columns
  const float* correct_coef;     // (streams, streams) likewise
  const float* correct_scale;    // (width,)
  Matrix narrow_in, narrow_out;  // (laurel_rank, width), (width, laurel_rank) beside attention
  NormWeights narrow_post_norm;
};

class Weights {
 public:
  /// Packs all tensors with the pool's threads and the ISA's kernels. Throws std::invalid_argument
  /// naming a tensor that is missing, unknown or of the wrong shape, std::system_error for a file
  /// that cannot be read, std::bad_alloc.
  Weights(const ModelConfig& config, const std::vector<TensorSource>& sources, ThreadPool& pool,
          const KernelSet& kernels);
  ~Weights();

  /// Resident bytes of the weights, computed from the sources alone.
  static size_t bytes(const ModelConfig& config, const std::vector<TensorSource>& sources);

  /// Packs other rows over those of a tensor; they are of its type. Throws std::invalid_argument
  /// if there is no such tensor or the size is another.
  void replace(const std::string& tensor, const uint8_t* data, size_t bytes,
               const KernelSet& kernels);

  /// Writes the embedding of a token, (width,).
  void embed(int32_t token, float* out) const;
  /// What is added to it for its position; null where positions are turned into queries and keys.
  const Table& positions() const { return positions_; }
  /// What is added to every token; null in most families.
  const float* token_type() const { return token_type_.empty() ? nullptr : token_type_.data(); }
  /// Of what all that comes to; null in most families.
  const NormWeights& embedding_norm() const { return embedding_norm_; }

  /// Rows of inputs that layers have of their own, (layers * per_layer_width,) for each token; the
  /// matrix that adds what the embedding gives, and its norm, (per_layer_width,). Null in most
  /// families.
  const Table& layer_inputs() const { return layer_inputs_; }
  const Matrix& layer_inputs_projection() const { return layer_inputs_projection_; }
  const float* layer_inputs_norm() const { return layer_inputs_norm_; }

  /// What makes the other residual streams of the first, and what each is read through in the end;
  /// streams - 1 of (width, width). Empty in most families.
  const std::vector<Matrix>& to_streams() const { return to_streams_; }
  const std::vector<Matrix>& from_streams() const { return from_streams_; }

  const std::vector<Layer>& layers() const { return layers_; }
  /// Null where the last block ends with a norm.
  const NormWeights& output_norm() const { return output_norm_; }
  const Matrix& output() const { return output_; }
  /// The matrices that adapters may change, by name: all of a block but routers and experts.
  const std::map<std::string, const Matrix*>& adaptable() const { return adaptable_; }

 private:
  class Reader;
  struct Slot;
  static std::vector<Slot> layout(const ModelConfig& config,
                                  const std::vector<TensorSource>& sources, size_t& total);
  void load(ThreadPool& pool, const KernelSet& kernels);
  void bind(const ModelConfig& config);

  std::vector<Slot> slots_;
  MemoryRegion region_;
  std::vector<Layer> layers_;
  std::map<std::string, const Matrix*> adaptable_;
  NormWeights output_norm_;
  Matrix output_;
  Table embedding_;  // null if tied: the rows of the packed output matrix
  Table positions_, token_types_, layer_inputs_;
  Matrix layer_inputs_projection_;
  const float* layer_inputs_norm_ = nullptr;
  std::vector<Matrix> to_streams_, from_streams_;
  std::vector<float> token_type_;  // (width,)
  std::vector<float> no_bias_;     // (width,) zeros, of layer norms without one
  NormWeights embedding_norm_;
  int64_t width_ = 0;
};

}  // namespace edgeinfer
