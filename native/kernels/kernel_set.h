// KernelSet: everything one instruction set offers, as one table of functions.
//
// The engine, the tests and the benchmarks call kernels only through this table, so an
// ISA is complete when it fills it. Kernels are noexcept, allocate nothing, log nothing;
// the caller does the threading by giving each thread its own range of row groups.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/all.h"
#include "quant/quant_type.h"

namespace edgeinfer {

/// 32 activations of one token, quantised to int8, and the sums that biased codes and minimums
/// need. One cache line. Each half of 16 has a scale; the smaller one is the larger divided by a
/// power of two. That is nearly as close as two free scales, and costs no multiplication where
/// powers of two are cheaper (Simd::fma_pow2).
struct alignas(64) ActBlock {
  int8_t q[32];      // in [-127, 127]
  float scale;       // of the first half
  float ratio;       // of the second half's scale to the first's: 2^-12 ... 2^12
  float exponent;    // of the ratio
  int32_t start[2];  // -kLiftedBias times the sum of q, per half
  float total[2];    // scale times the sum of q, per half
  float total_all;   // total[0] + total[1]

  /// What is subtracted of codes that have a bias, once they are lifted by kLiftedBias - kBias.
  static constexpr int kLiftedBias = 128;

  int32_t sum(int half) const { return -(start[half] >> 7); }
  float half_scale(int half) const { return half ? scale * ratio : scale; }
};
static_assert(sizeof(ActBlock) == 64);

/// The activations of one matrix product: `tokens` rows of `cols` values.
struct Activations {
  const float* f32;        // (tokens, cols) with row stride `stride`; read by float weights
  const ActBlock* blocks;  // (cols / 32, tokens) with row stride `block_stride`; by quantised ones
  int64_t stride;
  int64_t block_stride;
  int64_t tokens;
  int64_t cols;

  /// The same for tokens [t0, t0 + count).
  Activations slice(int64_t t0, int64_t count) const {
    return {f32 + t0 * stride, blocks + t0, stride, block_stride, count, cols};
  }
};

/// A KV cache comes in blocks of positions. Of a KV head, a block has kKvBlock rows of keys and
/// as many of values, each in a type of its own: a float, Q8_0 or Q4_0, and as many bytes as
/// the GGUF type. Keys of a float type lie as (position / kKvTile, head_dim, kKvTile), of a block
/// type as a packed matrix (quant/packed.h) whose rows are positions; values as rows, of a block
/// type in blocks of a scale and codes. head_dim is a multiple of the type's block.
inline constexpr int64_t kKvBlock = 256;
inline constexpr int64_t kKvTile = 64;
inline constexpr int64_t kMaxHeadDim = 512;

/// Inputs that a causal convolution sums, at most.
inline constexpr int64_t kMostTaps = 16;

/// Value channels of a delta net's state that lie together: (delta_dim, kDeltaTile).
inline constexpr int64_t kDeltaTile = 16;

/// The gated delta rule over tokens in their order, for a tile of the value channels of one head:
///     S = decay S;  S += k (beta (v - S' k))';  out = S' q
struct DeltaTask {
  const float* q;  // (tokens, dim) with row stride `stride`, as k and v
  const float* k;
  const float* v;  // (tokens, kDeltaTile)
  int64_t stride;
  const float* decay;  // (tokens,) with stride `step_stride`, as beta
  const float* beta;
  int64_t step_stride;
  int64_t tokens;  // at least 1
  int64_t dim;     // of keys, a multiple of 4
  float* state;    // (dim, kDeltaTile)
  float* out;      // (tokens, kDeltaTile) with row stride `out_stride`
  int64_t out_stride;
};

/// Part of an attention: `queries` query rows against positions [first, last) of one KV head.
/// Query i sees positions in [max(first, begin[i]), min(last, end[i])).
struct AttentionTask {
  const float* q;  // (queries, head_dim) with row stride q_stride, already roped
  int64_t q_stride;
  const uint8_t* k;      // the head's keys in block 0
  const uint8_t* v;      // its values
  int64_t block_stride;  // bytes from a block to the next
  QuantType k_type, v_type;
  int64_t head_dim;  // a multiple of 2, at most kMaxHeadDim
  int64_t queries;
  const int32_t* begin;  // (queries,)
  const int32_t* end;    // (queries,)
  int64_t first, last;
  float scale;    // multiplies q.k
  float softcap;  // 0 is off
  float* out;     // (queries, head_dim) with row stride out_stride: sum of p * v
  int64_t out_stride;
  float* max;  // (queries,) largest score seen times log2(e), -inf if none
  float* sum;  // (queries,) sum of exp(score) / 2^max
};

struct KernelSet {
  const char* name;

  /// Packs the GGUF matrix `src` (rows, cols) into dst, packed_bytes(rows, cols) long. Parts of a
  /// matrix that begin at a multiple of 16 rows may be packed by several threads, each into its
  /// place. The bytes are the same for every ISA.
  void (*pack[kQuantTypeCount])(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst);

  /// Quantises tokens [t0, t1) of x (tokens, cols; row stride `stride`) into
  /// out (cols / 32, tokens). cols is a multiple of 32.
  void (*quantize)(const float* x, int64_t stride, int64_t cols, int64_t tokens, int64_t t0,
                   int64_t t1, ActBlock* out);

  /// y[t][row] = sum_k w[row][k] * x[t][k] for every token t and the rows of groups [g0, g1).
  /// `packed` is the whole matrix (see quant/packed.h); rows beyond the matrix are padding
  /// of the last group and are not written: the matrix has `rows` rows.
  void (*matmul[kQuantTypeCount])(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1,
                                  const Activations& x, float* y, int64_t y_stride);

  /// y = x / sqrt(mean(x^2) + eps) * w over n values; y may be x.
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* y);

  /// y = (x - mean(x)) / sqrt(variance(x) + eps) * w + b over n values; y may be x.
  void (*layer_norm)(const float* x, const float* w, const float* b, float eps, int64_t n,
                     float* y);

  /// Turns `heads` rows of head_dim values in place. cos, sin: (rope_dim / 2,).
  /// Pairs are (2i, 2i+1) if neighbours, else (i, i + rope_dim / 2); lanes past rope_dim stay.
  void (*rope)(float* x, int64_t heads, int64_t head_dim, int64_t rope_dim, const float* cos,
               const float* sin, bool neighbours);

  /// gate = silu(gate) * up over n values; silu(x) = x / (1 + exp(-x)).
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  /// gate = gelu_tanh(gate) * up.
  void (*gelu_mul)(float* gate, const float* up, int64_t n);
  /// gate = g * sigmoid(1.702 * g) * (u + 1), where g is gate, 7 at most, and u is up in [-7, 7].
  void (*clamped_swiglu)(float* gate, const float* up, int64_t n);
  /// x = gelu_tanh(x).
  void (*gelu)(float* x, int64_t n);
  /// The same with gelu(x) = 0.5 * x * (1 + erf(x / sqrt(2))), which tanh only comes near to.
  void (*gelu_erf_mul)(float* gate, const float* up, int64_t n);
  void (*gelu_erf)(float* x, int64_t n);
  /// x = cap * tanh(scale * x / cap); a cap of 0 is none.
  void (*scale_and_cap)(float* x, float scale, float cap, int64_t n);

  /// The sum of exp(x - shift) over n values; shift is their maximum.
  double (*sum_exp)(const float* x, float shift, int64_t n);

  /// y = y + scale * x over n values.
  void (*add_scaled)(float* y, const float* x, float scale, int64_t n);

  /// y = y * x over n values.
  void (*multiply)(float* y, const float* x, int64_t n);

  /// y = y * sigmoid(gate) over n values.
  void (*sigmoid_mul)(float* y, const float* gate, int64_t n);

  /// See DeltaTask. A token's result has the same bits alone and among others.
  void (*delta_rule)(const DeltaTask& task);

  /// out[i] = sum_j w[j][i] * rows[j][i] over n channels, w (taps, n), and silu of it if asked: a
  /// causal convolution's output for one token, of whose inputs rows[taps - 1] is the last.
  void (*convolve)(const float* const* rows, const float* w, int64_t taps, bool silu, int64_t n,
                   float* out);

  /// Writes one token's row of keys, or of values (head_dim,), at its place [0, kKvBlock) in
  /// one head's part of a block. Null for types that a cache cannot have.
  void (*store_key[kQuantTypeCount])(const float* row, int64_t head_dim, int64_t place,
                                     uint8_t* keys);
  void (*store_value[kQuantTypeCount])(const float* row, int64_t head_dim, int64_t place,
                                       uint8_t* values);

  /// Flash attention over one range of positions; see AttentionTask. out is not normalised
  /// (divide by sum), so that ranges merge.
  void (*attend)(const AttentionTask& task);

  /// Adds the part of one query (n values, its max and sum) to what earlier positions gave.
  /// Merging the blocks of the cache in order gives the bits of one attend over all of them.
  void (*merge)(const float* part, float part_max, float part_sum, int64_t n, float* out,
                float* max, float* sum);

  /// Turns every `size` (a power of two, at least 16) of n values by the orthonormal
  /// Walsh-Hadamard matrix, in place; its own inverse.
  void (*hadamard)(float* x, int64_t size, int64_t n);

  // Ceilings, to hold the kernels against.

  /// Reads `bytes` (a multiple of 256) and returns some sum of them.
  int32_t (*read_all)(const uint8_t* p, int64_t bytes);
  /// Integer dot products of `bytes` activations with codes in registers:
  /// returns some sum of them, adds to `macs` the multiplications that were done.
  int32_t (*dot_all)(const int8_t* q, int64_t bytes, int64_t* macs);
};

}  // namespace edgeinfer
