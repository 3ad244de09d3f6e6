// Decoder: the forward pass of a decoder-only transformer, for every family.
//
// Vaswani et al., "Attention Is All You Need" (2017), with RMS norm (Zhang and Sennrich,
// 2019), rotary embedding (Su et al., 2021), grouped queries (Ainslie et al., 2023) and gated
// feed-forward blocks (Shazeer, 2020), one or a mixture of experts (Shazeer et al., 2017). What
// a family lacks is a null pointer or a neutral number in its ModelConfig and Weights.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/team_size.h"
#include "core/thread_pool.h"
#include "engine/attention.h"
#include "engine/causal_conv.h"
#include "engine/delta_net.h"
#include "engine/input_record.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/scratch.h"
#include "engine/weights.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

class Decoder {
 public:
  enum class Output { kLogits, kHidden };

  /// All references must outlive the decoder. At most `threads` of the pool take part in steps
  /// of a few tokens, `batch_threads` in others.
  Decoder(const ModelConfig& config, const Weights& weights, const KernelSet& kernels,
          ThreadPool& pool, int64_t batch, KvTypes kv_types, int threads, int batch_threads);

  /// Runs at most `batch` tokens through the model and stores their keys and values.
  /// Writes one row per entry of `wanted` (indices into the concatenated tokens):
  /// logits (vocab_size,) or normalised hidden states (width,). With a record, the inputs of all
  /// layers' matrices go there, too.
  void run(const std::vector<Span>& spans, const std::vector<int64_t>& wanted, Output output,
           float* out, const InputRecord* record = nullptr);

 private:
  // A matrix and where its product with the current input goes; rows are (tokens, stride).
  struct Product {
    const Matrix& matrix;
    float* out;
  };
  // Tokens [first, first + count) of the step, which use an adapter; few enough for one thread.
  struct Adapted {
    const AdapterUse* use;
    int64_t first, count;
    float* reduced;  // (matrices that share their input, count, rank): scale * A x
  };
  void forward(Team& team);
  template <class F>
  void for_each_token(Team& team, F&& f) {
    team.for_each(tokens_, 1, [&](int64_t t, int64_t) { f(t); });
  }
  void mix(Team& team, const Layer& layer, int64_t i);
  void attend(Team& team, const Layer& layer, int64_t i, const Activations& h);
  void take_queries(int64_t t);
  void gate_heads(int64_t t);
  void convolve(Team& team, const Layer& layer, int64_t i, const Activations& h);
  void recur(Team& team, const Layer& layer, int64_t i, const Activations& h);
  void embed(int64_t t);
  void norm(const float* x, const NormWeights& weights, float* out) const;
  void normalise(const float* x, const NormWeights& weights, float* h, int64_t t);
  void quantise(const float* x, int64_t cols, int64_t t0, int64_t t1);
  void record(float* InputRecord::* field, int64_t layer, const float* x, int64_t cols, int64_t t);
  void feed_forward(Team& team, const Layer& layer, int64_t i);
  void dense(Team& team, const Layer& layer, int64_t i, const std::vector<FeedForward>& blocks);
  void mixture(Team& team, const Layer& layer, int64_t i);
  void dense_and_mixture(Team& team, const Layer& layer, int64_t i, const Activations& h);
  void make_layer_inputs(Team& team);
  void take_layer_input(Team& team, const Layer& layer, int64_t i);
  void sparse(Team& team, const Layer& layer, int64_t i, const Activations& h);
  void add_narrow(Team& team, const Layer& layer);
  float* stream(int64_t j, int64_t t);
  void widen(Team& team);
  void predict(const Layer& layer, int64_t t);
  void correct(const Layer& layer, int64_t t);
  void route(const Layer& layer, const float* x, int64_t t, float* modes);
  void as_large_as(const float* x, float* y) const;
  void narrow(Team& team);
  void record_gated(const Layer& layer, int64_t index, int64_t t);
  void add_branch(const NormWeights& post_norm, const NormWeights& sum_norm, int64_t t);
  void scale(const Layer& layer, int64_t t);
  void rotate_and_store(int64_t layer, int64_t t);
  void choose_experts(const Layer& layer, int64_t t);
  void sort_by_expert();
  using Gate = void (*)(float* gate, const float* up, int64_t n);
  Gate gate_kernel() const;
  void gather(const Layer& layer, int64_t t);
  void add_experts(int64_t t);
  void expand(Team& team, const std::vector<FeedForward>& blocks, bool shared,
              const Activations& x);
  void contract(Team& team, const Layer& layer, const Activations& gated, float* out);
  template <class F>
  void for_each_expert(Team& team, const std::vector<FeedForward>& blocks, bool shared,
                       Matrix FeedForward::* matrix, F&& f);
  void project(Team& team, const Activations& x, std::initializer_list<Product> products);
  void plan_adapters(const std::vector<Span>& spans);
  void reduce(Team& team, const Activations& x, std::span<const Matrix* const> matrices);
  void adapt(const Matrix& m, int64_t slot, int64_t g0, int64_t g1, int64_t first, int64_t count,
             float* out, int64_t stride);
  void multiply(const Matrix& m, int64_t g0, int64_t g1, const Activations& x, float* out,
                int64_t stride);
  void finish(Team& team);

  const ModelConfig& config_;
  const Weights& weights_;
  const KernelSet& kernels_;
  ThreadPool& pool_;
  const int batch_threads_;
  TeamSize team_size_;  // of decode steps
  Scratch s_;
  KvCache step_kv_;  // of the texts of a step, where nothing of them is kept
  Attention attention_;
  CausalConv causal_conv_;
  DeltaNet delta_net_;
  const std::vector<float> ones_;  // (head_dim,) where values have a norm

  // The step in progress.
  int64_t tokens_ = 0;
  std::vector<int32_t> token_ids_;
  std::vector<Adapted> adapted_;
  std::vector<float> reduced_;
  const std::vector<int64_t>* wanted_ = nullptr;
  Output output_ = Output::kLogits;
  float* out_ = nullptr;
  const InputRecord* record_ = nullptr;
};

}  // namespace edgeinfer
