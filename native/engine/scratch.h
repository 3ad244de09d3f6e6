// Scratch: the buffers of one step, sized for `batch` tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/memory_region.h"
#include "engine/model_config.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// Rows of a step's feed-forward blocks that go through the same one.
struct FfShare {
  int32_t expert = 0;
  int32_t first = 0, count = 0;
};

struct Scratch {
  /// Attention over a long context is cut into position ranges; each leaves a partial result.
  static constexpr int64_t kMinPartials = 64;

  float* x;        // (batch, width) the residual stream
  float* h;        // (batch, width) its norm, the input of a block
  float* y;        // (batch, width) the output of a block
  float* q;        // (batch, mixed_width) queries, then what the mixer makes
  float* k;        // (batch, kv_width)
  float* v;        // (batch, kv_width)
  float* queries;  // (kv_heads, batch, heads / kv_heads, head_dim)
  float* mixed;  // (partials, heads, head_dim) as (split, kv_head, token, head of group, head_dim)
  float* mixed_max;     // (partials, heads)
  float* mixed_sum;     // (partials, heads)
  float* gated;         // (ff rows, ff_width) the input of the down projection
  float* cosines;       // (rope tables, batch, head_dim / 2)
  float* sines;         // (rope tables, batch, head_dim / 2)
  ActBlock* blocks;     // (wider of width and mixed_width / 32, batch) h, or a mixer's output
  ActBlock* ff_blocks;  // (ff_width / 32, ff rows) gated

  // Of layers with inputs of their own.
  float* layer_inputs;  // (batch, layers, per_layer_width)
  float* layer_rows;    // (batch, layers, per_layer_width) rows of their table
  float* layer_gate;    // (batch, per_layer_width)

  // Of recurrent layers.
  float* projected;  // (batch, projected_width) of short convolutions, delta nets, gated queries
  float* convolved;  // (batch, conv_width) of delta nets: keys, queries and values
  float* gate;       // (batch, mixed_width) of delta nets
  float* steps;      // (2, batch, delta_heads) what decay and beta are made of
  float* decay;      // (batch, delta_heads) of the state
  float* beta;       // (batch, delta_heads) how much of a value is learnt

  float* streams;  // (streams, batch, width) of several residual streams
  float* narrow;   // (batch, laurel_rank)
  float* up;       // (batch, ff_width) beside gates of which only the largest count
  float* beside;   // (batch, width) of a block beside the experts

  // With experts a token is a row for each that it takes, and rows are ordered by expert.
  float* router;          // (batch, experts) scores, then weights
  float* shared;          // (batch,) score of the shared one
  int32_t* chosen;        // (batch, rows a token) experts of a token, the best first
  float* chosen_weight;   // (batch, rows a token)
  int32_t* row;           // (batch, rows a token) row of a token's expert
  int32_t* next_row;      // (ff_blocks,)
  FfShare* shares;        // (ff_blocks,) those in use first
  float* ff_x;            // (ff rows, width) inputs, then outputs
  ActBlock* ff_x_blocks;  // (width / 32, ff rows)

  int64_t batch;
  int64_t partials;

  Scratch(const ModelConfig& c, int64_t batch_tokens)
      : batch(batch_tokens),
        partials(std::max(batch_tokens, kMinPartials)),
        region_(place(c, nullptr), MemoryRegion::Pages::kSmall) {
    place(c, region_.data());
  }

  /// Bytes of the buffers and of one row of logits.
  static size_t bytes(const ModelConfig& c, int64_t batch_tokens) {
    Scratch counted(batch_tokens);
    return counted.place(c, nullptr) + static_cast<size_t>(c.vocab_size) * sizeof(float);
  }

 private:
  explicit Scratch(int64_t batch_tokens)
      : batch(batch_tokens), partials(std::max(batch_tokens, kMinPartials)) {}

  // Sets every pointer relative to `base` and returns the bytes needed.
  size_t place(const ModelConfig& c, uint8_t* base) {
    size_t used = 0;
    const auto take = [&]<class T>(T*& pointer, int64_t count) {
      pointer = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + used);
      used += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    };
    const auto tables = static_cast<int64_t>(c.rope_tables.size());
    take(x, batch * c.width);
    take(h, batch * c.width);
    take(y, batch * c.width);
    take(q, batch * c.mixed_width());
    take(k, batch * c.kv_width());
    take(v, batch * c.kv_width());
    take(queries, batch * c.q_width());
    take(mixed, partials * c.q_width());
    take(mixed_max, partials * c.heads);
    take(mixed_sum, partials * c.heads);
    const int64_t ff_rows = batch * c.ff_rows_per_token();
    take(gated, std::max(ff_rows * c.ff_width, batch * c.dense_ff_width));
    take(cosines, tables * batch * (c.head_dim / 2));
    take(sines, tables * batch * (c.head_dim / 2));
    take(blocks, (std::max({c.width, c.mixed_width(), c.per_layer_width, c.laurel_rank}) + 31) /
                     32 * batch);
    take(ff_blocks,
         std::max((c.ff_width + 31) / 32 * ff_rows, (c.dense_ff_width + 31) / 32 * batch));
    take(projected, batch * c.projected_width());
    take(layer_inputs, batch * c.layers * c.per_layer_width);
    take(layer_rows, batch * c.layers * c.per_layer_width);
    take(layer_gate, batch * c.per_layer_width);
    take(streams, c.streams > 1 ? c.streams * batch * c.width : 0);
    take(narrow, batch * c.laurel_rank);
    take(up, c.has_sparse_gates() ? batch * c.ff_width : 0);
    take(beside, c.has_beside() ? batch * c.width : 0);
    if (c.has(Mixer::kDeltaNet)) {
      take(convolved, batch * c.conv_width(Mixer::kDeltaNet));
      take(gate, batch * c.mixed_width(Mixer::kDeltaNet));
      take(steps, 2 * batch * c.delta_heads);
      take(decay, batch * c.delta_heads);
      take(beta, batch * c.delta_heads);
    }
    if (!c.experts) return used;
    take(router, batch * c.experts);
    take(chosen, ff_rows);
    take(chosen_weight, ff_rows);
    take(row, ff_rows);
    take(shared, batch);
    take(next_row, c.ff_blocks());
    take(shares, c.ff_blocks());
    take(ff_x, ff_rows * c.width);
    take(ff_x_blocks, (c.width + 31) / 32 * ff_rows);
    return used;
  }

  MemoryRegion region_;
};

}  // namespace edgeinfer
