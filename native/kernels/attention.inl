// Attention over the KV cache, block by block with a running maximum (flash attention: Dao et al.
// 2022, arXiv:2205.14135; the running softmax: Milakov and Gimelshein 2018, arXiv:1805.02867).
//
// Keys are read as vectors of positions, so scores come out as vectors; values as vectors of
// channels. Queries that share them (the heads of a group, the tokens of a prompt) go over a block
// together: once over its keys, then over its values, each a linear stream. Each block is summed on
// its own and then merged, in order: a query's result depends neither on its company nor on how
// blocks are spread over threads.

inline constexpr int64_t kQueries = 4 * V::kTokenTile;          // taken together: scores stay in L1
inline constexpr int64_t kSliceRows = 64, kSliceChannels = 64;  // of a block type made floats

/// Queries that go over a block together.
struct QueryRows {
  const float* q;  // (count, dim) with row stride `stride`
  int64_t stride;
  int64_t dim;
  int64_t count;
  const ActBlock* blocks;  // the same (dim / 32, count), for keys of a block type
};

/// Calls f(Index<T>, t) for V::kTokenTile rows at a time, and the rest in one go.
template <class F>
EI_INLINE void for_query_tiles(int64_t count, F&& f) {
  int64_t t = 0;
  for (; t + V::kTokenTile <= count; t += V::kTokenTile) f(Index<V::kTokenTile>{}, t);
  unroll<V::kTokenTile - 1>(EI_LAMBDA(i) {
    if (count - t == i + 1) f(Index<i + 1>{}, t);
  });
}

/// Asks for the line that kPrefetchBytes ahead of each of `bytes` will be.
template <int kBytes>
EI_INLINE void prefetch_ahead(const void* p) {
  unroll<(kBytes + 63) / 64>(
      EI_LAMBDA(i) { V::prefetch(static_cast<const char*>(p) + kPrefetchBytes + 64 * i); });
}

/// p (T, kKvTile; row stride kKvBlock) = q . k for a tile of keys (dim, kKvTile).
template <class Value, int T>
EI_NOINLINE void score_rows(const Value* keys, const QueryRows& rows, int64_t row, float* p) {
  constexpr int N = 4;
  for (int64_t c = 0; c < kKvTile; c += N * kWidth) {
    const float* q = rows.q + row * rows.stride;
    Floats acc[T][N];
    unroll<T>(EI_LAMBDA(t) { unroll<N>(EI_LAMBDA(v) { acc[t][v] = V::set(0); }); });
    for (int64_t d = 0; d < rows.dim; ++d) {
      const Value* key = keys + d * kKvTile + c;
      prefetch_ahead<N * kWidth * sizeof(Value)>(key);
      Floats k[N];
      unroll<N>(EI_LAMBDA(v) { k[v] = V::load(key + v * kWidth); });
      unroll<T>(EI_LAMBDA(t) {
        const Floats x = V::set(q[t * rows.stride + d]);
        unroll<N>(EI_LAMBDA(v) { acc[t][v] = V::fma(k[v], x, acc[t][v]); });
      });
    }
    unroll<T>(EI_LAMBDA(t) {
      unroll<N>(EI_LAMBDA(v) { V::store(p + (row + t) * kKvBlock + c + v * kWidth, acc[t][v]); });
    });
  }
}

/// p (count, kKvBlock) = q . k for the keys of a block in whole tiles that cover [first, last).
template <class Q>
void score_block(const uint8_t* keys, const QueryRows& rows, int64_t first, int64_t last,
                 float* p) {
  const int64_t begin = first / kKvTile, end = (last + kKvTile - 1) / kKvTile;
  if constexpr (FloatType<Q>) {
    using Value = typename Q::Value;
    for (int64_t tile = begin; tile < end; ++tile) {
      const Value* tile_keys = reinterpret_cast<const Value*>(keys) + tile * kKvTile * rows.dim;
      for_query_tiles(rows.count, [&](auto t_count, int64_t t) __attribute__((always_inline)) {
        score_rows<Value, t_count.value>(tile_keys, rows, t, p + tile * kKvTile);
      });
    }
  } else {
    constexpr int64_t kGroups = kKvTile / kGroupRows;
    const Activations x{nullptr, rows.blocks, 0, rows.count, rows.count, rows.dim};
    matmul_int8<Q>(keys, kKvBlock, begin * kGroups, end * kGroups, x, p, kKvBlock);
  }
}

/// 2^x for x <= 0, relative error below 2e-7; 0 below -126.5.
EI_INLINE Floats exp2(Floats x) {
  x = V::max(V::set(-127.0f), x);  // in this order NaN stays NaN
  const Ints n = V::to_i32(x);
  const Floats r = V::sub(x, V::to_f32(n));
  // Minimax on [-1/2, 1/2], but for the first coefficient, so that 2^0 is 1.
  Floats p = V::set(1.32647e-3f);
  p = V::fma(p, r, V::set(9.67151e-3f));
  p = V::fma(p, r, V::set(5.550734e-2f));
  p = V::fma(p, r, V::set(2.4022242e-1f));
  p = V::fma(p, r, V::set(6.9314698e-1f));
  p = V::fma(p, r, V::set(1.0f));
  // 2^n by its exponent bits; n = -127 gives 0.
  return V::mul(p, V::as_f32(V::shift_left<23>(V::add(n, V::set_i32(127)))));
}
EI_INLINE float exp2(float x) {
  alignas(64) float lanes[kWidth];
  V::store(lanes, exp2(V::set(x)));
  return lanes[0];
}

/// The largest score times log2(e), and the sum of 2^(score - max).
struct Peak {
  float max, sum;
};

/// Scales, masks and exponentiates one query's scores of a block; only [lo, hi) is seen, and only
/// the tiles around it are written.
EI_INLINE Peak softmax_block(const AttentionTask& task, int64_t lo, int64_t hi, float* p) {
  constexpr float kLog2e = 1.44269504f;
  const int64_t begin = lo / kKvTile * kKvTile;
  const int64_t end = (hi + kKvTile - 1) / kKvTile * kKvTile;
  if (task.softcap == 0) {
    for (int64_t i = begin; i < end; i += kWidth) {
      V::store(p + i, V::mul(V::load(p + i), V::set(task.scale * kLog2e)));
    }
  } else {
    for (int64_t i = begin; i < end; i += kWidth) {
      const Floats s = softcap(V::mul(V::load(p + i), V::set(task.scale)), task.softcap);
      V::store(p + i, V::mul(s, V::set(kLog2e)));
    }
  }
  for (int64_t i = begin; i < lo; ++i) p[i] = -__builtin_inff();
  for (int64_t i = hi; i < end; ++i) p[i] = -__builtin_inff();
  Floats peak = V::load(p + begin);
  for (int64_t i = begin + kWidth; i < end; i += kWidth) peak = V::max(V::load(p + i), peak);
  const float max = V::maximum(peak);
  Floats sum = V::set(0);
  for (int64_t i = begin; i < end; i += kWidth) {
    const Floats e = exp2(V::sub(V::load(p + i), V::set(max)));
    V::store(p + i, e);
    sum = V::add(sum, e);
  }
  return {max, V::sum(sum)};
}

/// Weights of a block's values, and where their sums go.
struct Weighted {
  const float* p;  // (queries, kKvBlock)
  float* out;      // (queries, dim)
  int64_t queries, dim;
};

/// out += p . v for T queries, positions [k0, k1) and channels [d, d + N * kWidth); `values`
/// (positions, stride) begin at position k0 and channel d.
template <class Value, int N, int T>
EI_NOINLINE void add_rows(const Value* values, int64_t stride, const Weighted& w, int64_t row,
                          int64_t k0, int64_t k1, int64_t d) {
  Floats acc[T][N];
  float* out = w.out + row * w.dim + d;
  unroll<T>(EI_LAMBDA(t) {
    unroll<N>(EI_LAMBDA(v) { acc[t][v] = V::load(out + t * w.dim + v * kWidth); });
  });
  const float* p = w.p + row * kKvBlock;
  for (int64_t k = k0; k < k1; ++k, values += stride) {
    prefetch_ahead<N * kWidth * sizeof(Value)>(values);
    Floats x[N];
    unroll<N>(EI_LAMBDA(v) { x[v] = V::load(values + v * kWidth); });
    unroll<T>(EI_LAMBDA(t) {
      const Floats weight = V::set(p[t * kKvBlock + k]);
      unroll<N>(EI_LAMBDA(v) { acc[t][v] = V::fma(x[v], weight, acc[t][v]); });
    });
  }
  unroll<T>(EI_LAMBDA(t) {
    unroll<N>(EI_LAMBDA(v) { V::store(out + t * w.dim + v * kWidth, acc[t][v]); });
  });
}

/// The same for channels [d, d + channels), of any number, and all queries.
template <class Value>
EI_INLINE void add_channels(const Value* values, int64_t stride, const Weighted& w, int64_t k0,
                            int64_t k1, int64_t d, int64_t channels) {
  const auto run = [&](auto n, int64_t c) __attribute__((always_inline)) {
    for_query_tiles(w.queries, [&](auto t_count, int64_t t) __attribute__((always_inline)) {
      add_rows<Value, n.value, t_count.value>(values + c, stride, w, t, k0, k1, d + c);
    });
  };
  constexpr int N = 4;
  int64_t c = 0;
  for (; c + N * kWidth <= channels; c += N * kWidth) run(Index<N>{}, c);
  for (; c + kWidth <= channels; c += kWidth) run(Index<1>{}, c);
  for (; c < channels; ++c) {  // the tail of a head size that is no multiple of the vector
    for (int64_t t = 0; t < w.queries; ++t) {
      float& sum = w.out[t * w.dim + d + c];
      for (int64_t k = k0; k < k1; ++k) {
        sum += w.p[t * kKvBlock + k] * scalar_value(values[(k - k0) * stride + c]);
      }
    }
  }
}

/// out += p . v for positions [first, last) of a block of values of any type.
template <class Q>
void add_block(const uint8_t* values, const Weighted& w, int64_t first, int64_t last) {
  if constexpr (FloatType<Q>) {
    const auto* rows = reinterpret_cast<const typename Q::Value*>(values) + first * w.dim;
    add_channels(rows, w.dim, w, first, last, 0, w.dim);
  } else {
    const int64_t row_blocks = w.dim / kStep;
    alignas(64) float slice[kSliceRows * kSliceChannels];
    for (int64_t k0 = first; k0 < last; k0 += kSliceRows) {
      const int64_t k1 = last - k0 < kSliceRows ? last : k0 + kSliceRows;
      for (int64_t d = 0; d < w.dim; d += kSliceChannels) {
        const int64_t channels = w.dim - d < kSliceChannels ? w.dim - d : kSliceChannels;
        for (int64_t k = k0; k < k1; ++k) {
          const auto* block = reinterpret_cast<const typename Q::Block*>(values) + k * row_blocks;
          block += d / kStep;
          V::prefetch(reinterpret_cast<const char*>(block) + kPrefetchBytes);
          for (int64_t c = 0; c < channels; c += kStep, ++block) {
            load_block<Q>(*block, slice + (k - k0) * kSliceChannels + c);
          }
        }
        add_channels(slice, kSliceChannels, w, k0, k1, d, channels);
      }
    }
  }
}

/// The kernels of one type of keys or values; null if a cache cannot have it.
struct KvKernels {
  void (*score)(const uint8_t* keys, const QueryRows& rows, int64_t first, int64_t last, float* p);
  void (*add)(const uint8_t* values, const Weighted& w, int64_t first, int64_t last);
  bool quantised;
};
template <class Q>
constexpr KvKernels kv_kernels_of() {
  if constexpr (KvType<Q>)
    return {&score_block<Q>, &add_block<Q>, !FloatType<Q>};
  else
    return {};
}
constexpr KvKernels kKvKernels[] = {
#define EI_QUANT_TYPE(T, file) kv_kernels_of<T>(),
#include "quant/types.inc"
#undef EI_QUANT_TYPE
};

/// Adds a partial result to another; see KernelSet::merge.
void merge(const float* part, float part_max, float part_sum, int64_t n, float* out, float* max,
           float* sum) {
  if (part_sum == 0) return;
  const float highest = part_max > *max ? part_max : *max;
  const float mine = exp2(part_max - highest), theirs = exp2(*max - highest);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Floats old = V::mul(V::load(out + i), V::set(theirs));
    V::store(out + i, V::fma(V::load(part + i), V::set(mine), old));
  }
  for (; i < n; ++i) out[i] = part[i] * mine + out[i] * theirs;
  *max = highest;
  *sum = part_sum * mine + *sum * theirs;
}

/// Queries [query, query + count) over positions [first, last) of the block that begins at `base`.
EI_NOINLINE void attend_block(const AttentionTask& task, int64_t query, int64_t count, int64_t base,
                              int64_t first, int64_t last) {
  const int64_t dim = task.head_dim, offset = base / kKvBlock * task.block_stride;
  const KvKernels &keys = kKvKernels[task.k_type], &values = kKvKernels[task.v_type];
  alignas(64) float p[kQueries * kKvBlock];
  alignas(64) float out[kQueries * kMaxHeadDim];
  alignas(64) ActBlock blocks[kQueries * kMaxHeadDim / kStep];
  Peak peaks[kQueries];
  const float* q = task.q + query * task.q_stride;
  if (keys.quantised) quantize(q, task.q_stride, dim, count, 0, count, blocks);
  keys.score(task.k + offset, {q, task.q_stride, dim, count, blocks}, first, last, p);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t begin = task.begin[query + t] - base, end = task.end[query + t] - base;
    const int64_t lo = begin > first ? begin : first, hi = end < last ? end : last;
    float* row = p + t * kKvBlock;
    peaks[t] = lo < hi ? softmax_block(task, lo, hi, row) : Peak{-__builtin_inff(), 0};
    // What others see and this query does not weighs nothing.
    const int64_t seen_begin = lo < hi ? lo / kKvTile * kKvTile : last;
    const int64_t seen_end = lo < hi ? (hi + kKvTile - 1) / kKvTile * kKvTile : last;
    for (int64_t i = first; i < seen_begin; ++i) row[i] = 0;
    for (int64_t i = seen_end; i < last; ++i) row[i] = 0;
  }
  for (int64_t i = 0; i < count * dim; ++i) out[i] = 0;
  values.add(task.v + offset, {p, out, count, dim}, first, last);
  for (int64_t t = 0; t < count; ++t) {
    merge(out + t * dim, peaks[t].max, peaks[t].sum, dim, task.out + (query + t) * task.out_stride,
          task.max + query + t, task.sum + query + t);
  }
}

void attend(const AttentionTask& task) {
  for (int64_t i = 0; i < task.queries; ++i) {
    task.max[i] = -__builtin_inff();
    task.sum[i] = 0;
    for (int64_t d = 0; d < task.head_dim; ++d) task.out[i * task.out_stride + d] = 0;
  }
  for (int64_t base = task.first / kKvBlock * kKvBlock; base < task.last; base += kKvBlock) {
    for (int64_t query = 0; query < task.queries; query += kQueries) {
      const int64_t count = task.queries - query < kQueries ? task.queries - query : kQueries;
      // What any of these queries sees of the block.
      int64_t first = task.last, last = task.first;
      for (int64_t i = query; i < query + count; ++i) {
        if (task.begin[i] < first) first = task.begin[i];
        if (task.end[i] > last) last = task.end[i];
      }
      first = (first > task.first ? first : task.first) - base;
      last = (last < task.last ? last : task.last) - base;
      if (first < 0) first = 0;
      if (last > kKvBlock) last = kKvBlock;
      if (first < last) attend_block(task, query, count, base, first, last);
    }
  }
}
