// Attention over the KV cache, tile by tile with a running maximum (flash attention: Dao et al.
// 2022, arXiv:2205.14135; the running softmax: Milakov and Gimelshein 2018, arXiv:1805.02867).
//
// Keys lie like packed weights whose rows are positions, so scores come out as vectors of 16
// positions by the same loop as a matrix product; so do the weighted values, whose vectors
// run along the head's dimension.

inline constexpr int64_t kPositions = 64;  // a tile
inline constexpr int64_t kQueries = 12;    // taken together: the scores stay in L1

/// p (queries, kPositions) = q . k for the positions from `base`, a multiple of 16.
template <class Value>
EI_NOINLINE void score_tile(const AttentionTask& task, int64_t query, int64_t queries, int64_t base,
                            int64_t count, float* p) {
  constexpr int N = 2;
  const auto* keys = static_cast<const Value*>(task.k);
  const int64_t vectors = (count + kWidth - 1) / kWidth;
  const auto run = [&](auto n, int64_t v0) __attribute__((always_inline)) {
    const Value* w[n.value];
    unroll<n.value>(EI_LAMBDA(v) {
      const int64_t position = base + (v0 + v) * kWidth;
      w[v] = keys + position / 16 * 16 * task.head_dim + position % 16;
    });
    for_token_tiles(queries, [&](auto t_count, int64_t t) __attribute__((always_inline)) {
      Floats sums[t_count.value][n.value];
      float_tile<Value, n.value, t_count.value>(w, 16, task.q + (query + t) * task.q_stride,
                                                task.q_stride, task.head_dim, sums);
      unroll<t_count.value>(EI_LAMBDA(i) {
        unroll<n.value>(
            EI_LAMBDA(v) { V::store(p + (t + i) * kPositions + (v0 + v) * kWidth, sums[i][v]); });
      });
    });
  };
  int64_t v0 = 0;
  for (; v0 + N <= vectors; v0 += N) run(Index<N>{}, v0);
  for (; v0 < vectors; ++v0) run(Index<1>{}, v0);
}

/// Scales, masks and exponentiates one query's scores in place; lanes out of [lo, hi) become 0.
/// Returns the factor by which what was summed before has to shrink.
EI_INLINE float softmax_tile(const AttentionTask& task, int64_t query, int64_t lo, int64_t hi,
                             int64_t count, float* p) {
  const float infinity = __builtin_inff();
  const int64_t padded = (count + kWidth - 1) / kWidth * kWidth;
  Floats peak = V::set(-infinity);
  for (int64_t i = 0; i < padded; i += kWidth) {
    Floats s = V::mul(V::load(p + i), V::set(task.scale));
    if (task.softcap != 0) s = softcap(s, task.softcap);
    V::store(p + i, s);
  }
  for (int64_t i = 0; i < lo; ++i) p[i] = -infinity;
  for (int64_t i = hi; i < padded; ++i) p[i] = -infinity;
  for (int64_t i = 0; i < padded; i += kWidth) peak = V::max(V::load(p + i), peak);
  const float before = task.max[query];
  const float highest = V::maximum(peak);
  const float now = highest > before ? highest : before;
  if (now == -infinity) {  // nothing seen yet
    for (int64_t i = 0; i < padded; ++i) p[i] = 0;
    return 1;
  }
  Floats total = V::set(0);
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Floats e = exp(V::sub(V::load(p + i), V::set(now)));
    V::store(p + i, e);
    total = V::add(total, e);
  }
  alignas(64) float lanes[kWidth];
  V::store(lanes, exp(V::set(before - now)));
  task.max[query] = now;
  task.sum[query] = task.sum[query] * lanes[0] + V::sum(total);
  return lanes[0];
}

/// out = shrink * out + p . v over `count` positions from `position`.
template <class Value>
EI_NOINLINE void add_values(const AttentionTask& task, int64_t query, int64_t queries,
                            const float* shrink, int64_t position, int64_t count, const float* p) {
  constexpr int N = 2;
  const int64_t dim = task.head_dim;
  const auto* values = static_cast<const Value*>(task.v) + position * dim;
  const auto run = [&](auto n, int64_t d) __attribute__((always_inline)) {
    const Value* w[n.value];
    unroll<n.value>(EI_LAMBDA(v) { w[v] = values + d + v * kWidth; });
    for_token_tiles(queries, [&](auto t_count, int64_t t) __attribute__((always_inline)) {
      Floats sums[t_count.value][n.value];
      float_tile<Value, n.value, t_count.value>(w, dim, p + t * kPositions, kPositions, count,
                                                sums);
      unroll<t_count.value>(EI_LAMBDA(i) {
        float* out = task.out + (query + t + i) * task.out_stride + d;
        unroll<n.value>(EI_LAMBDA(v) {
          float* o = out + v * kWidth;
          V::store(o, V::fma(V::load(o), V::set(shrink[t + i]), sums[i][v]));
        });
      });
    });
  };
  int64_t d = 0;
  for (; d + N * kWidth <= dim; d += N * kWidth) run(Index<N>{}, d);
  for (; d + kWidth <= dim; d += kWidth) run(Index<1>{}, d);
  for (; d < dim; ++d) {  // the tail of a head size that is no multiple of the vector
    for (int64_t t = 0; t < queries; ++t) {
      float& o = task.out[(query + t) * task.out_stride + d];
      o *= shrink[t];
      for (int64_t k = 0; k < count; ++k) {
        o += p[t * kPositions + k] * scalar_value(values[k * dim + d]);
      }
    }
  }
}

template <class Value>
EI_INLINE void attend_as(const AttentionTask& task) {
  alignas(64) float p[kQueries * kPositions];
  float shrink[kQueries];
  for (int64_t query = 0; query < task.queries; query += kQueries) {
    const int64_t queries = task.queries - query < kQueries ? task.queries - query : kQueries;
    int64_t first = task.last, last = task.first;  // what any of these queries sees
    for (int64_t i = query; i < query + queries; ++i) {
      task.max[i] = -__builtin_inff();
      task.sum[i] = 0;
      for (int64_t d = 0; d < task.head_dim; ++d) task.out[i * task.out_stride + d] = 0;
      if (task.begin[i] < first) first = task.begin[i];
      if (task.end[i] > last) last = task.end[i];
    }
    if (first < task.first) first = task.first;
    if (last > task.last) last = task.last;
    for (int64_t base = first / 16 * 16; base < last; base += kPositions) {
      const int64_t count = last - base < kPositions ? last - base : kPositions;
      const int64_t skip = first > base ? first - base : 0;
      score_tile<Value>(task, query, queries, base, count, p);
      for (int64_t t = 0; t < queries; ++t) {
        int64_t lo = task.begin[query + t] - base, hi = task.end[query + t] - base;
        lo = lo < skip ? skip : lo > count ? count : lo;
        hi = hi > count ? count : hi < lo ? lo : hi;
        shrink[t] = softmax_tile(task, query + t, lo, hi, count, p + t * kPositions);
      }
      add_values<Value>(task, query, queries, shrink, base + skip, count - skip, p + skip);
    }
  }
}

void attend(const AttentionTask& task) {
  if (task.kv_half) return attend_as<Half>(task);
  attend_as<float>(task);
}

void store_kv(const float* k_row, const float* v_row, int64_t head_dim, int64_t position,
              bool kv_half, void* k, void* v) {
  const int64_t key = position / 16 * 16 * head_dim + position % 16;
  const int64_t value = position * head_dim;
  if (kv_half) {
    auto *keys = static_cast<Half*>(k) + key, *values = static_cast<Half*>(v) + value;
    for (int64_t d = 0; d < head_dim; ++d) {
      keys[16 * d] = to_half(k_row[d]);
      values[d] = to_half(v_row[d]);
    }
  } else {
    auto *keys = static_cast<float*>(k) + key, *values = static_cast<float*>(v) + value;
    for (int64_t d = 0; d < head_dim; ++d) {
      keys[16 * d] = k_row[d];
      values[d] = v_row[d];
    }
  }
}
