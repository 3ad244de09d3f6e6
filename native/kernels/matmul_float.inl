// Matrix product of float weights (F32, F16, BF16) and float activations.
//
// float_tile is the one loop under it, and under both products of attention: N vectors of 16-row
// groups times T tokens with every accumulator in a register, two chains (even and odd k) that
// hide the latency of the FMA and halve the rounding error.

/// sums[t][v] = sum over k of w[v][k * w_stride ...] * x[t * x_stride + k].
template <class Value, int N, int T, bool kStream = (T == 1)>
EI_INLINE void float_tile(const Value* const* w, int64_t w_stride, const float* x, int64_t x_stride,
                          int64_t count, Floats (*sums)[N]) {
  Floats acc[2][T][N];
  unroll<T>(EI_LAMBDA(t) { unroll<N>(EI_LAMBDA(v) { acc[0][t][v] = acc[1][t][v] = V::set(0); }); });
  const auto add = [&](auto chain, int64_t k) __attribute__((always_inline)) {
    if constexpr (kStream && chain == 0) {  // two k are at most two lines of a group's stream
      V::prefetch(reinterpret_cast<const char*>(w[0] + k * w_stride) + kPrefetchBytes);
      if constexpr (sizeof(Value) == 4) {
        V::prefetch(reinterpret_cast<const char*>(w[0] + k * w_stride) + kPrefetchBytes + 64);
      }
    }
    Floats a[N];
    unroll<N>(EI_LAMBDA(v) { a[v] = V::load(w[v] + k * w_stride); });
    unroll<T>(EI_LAMBDA(t) {
      const Floats b = V::set(x[t * x_stride + k]);
      unroll<N>(EI_LAMBDA(v) { acc[chain][t][v] = V::fma(a[v], b, acc[chain][t][v]); });
    });
  };
  int64_t k = 0;
  for (; k + 2 <= count; k += 2) {
    add(Index<0>{}, k);
    add(Index<1>{}, k + 1);
  }
  if (k < count) add(Index<0>{}, k);
  unroll<T>(EI_LAMBDA(t) {
    unroll<N>(EI_LAMBDA(v) { sums[t][v] = V::add(acc[0][t][v], acc[1][t][v]); });
  });
}

/// Calls f(Index<T>, t) for all tokens, V::kTokenTile at a time and the rest one by one.
template <class F>
EI_INLINE void for_token_tiles(int64_t tokens, F&& f) {
  int64_t t = 0;
  for (; t + V::kTokenTile <= tokens; t += V::kTokenTile) f(Index<V::kTokenTile>{}, t);
  for (; t < tokens; ++t) f(Index<1>{}, t);
}

/// Rows [row, row + N * kWidth) for T tokens from t0.
template <class Value, int N, int T>
EI_NOINLINE void float_rows(const uint8_t* packed, int64_t rows, int64_t row, const Activations& x,
                            int64_t t0, float* y, int64_t y_stride) {
  const Value* w[N];
  unroll<N>(EI_LAMBDA(v) {
    const int64_t r = row + v * kWidth;
    w[v] = reinterpret_cast<const Value*>(packed) + r / kGroupRows * kGroupRows * x.cols +
           r % kGroupRows;
  });
  Floats sums[T][N];
  float_tile<Value, N, T, N == kParts && T <= V::kFewTokens>(w, kGroupRows, x.f32 + t0 * x.stride,
                                                             x.stride, x.cols, sums);
  unroll<T>(EI_LAMBDA(t) {
    unroll<N>(EI_LAMBDA(v) {
      const int64_t r = row + v * kWidth;
      if (r < rows) store_rows(y + (t0 + t) * y_stride + r, sums[t][v], rows - r);
    });
  });
}

template <class Q>
void matmul_float(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1, const Activations& x,
                  float* y, int64_t y_stride) {
  using Value = typename Q::Value;
  const int64_t end = g1 * kGroupRows < rows ? g1 * kGroupRows : rows;
  int64_t row = g0 * kGroupRows;
  constexpr int kStreamed = V::kFewTokens / kParts > 1 ? V::kFewTokens / kParts : 1;
  if (x.tokens <= kStreamed) {  // one linear stream
    for (; row < end; row += kGroupRows) {
      unroll<kStreamed>(EI_LAMBDA(i) {
        if (x.tokens == i + 1) {
          float_rows<Value, kParts, i + 1>(packed, rows, row, x, 0, y, y_stride);
        }
      });
    }
    return;
  }
  constexpr int kVectors = 2;
  for (; row + (kVectors - 1) * kWidth < end; row += kVectors * kWidth) {
    for_token_tiles(x.tokens, [&](auto t_count, int64_t t) {
      float_rows<Value, kVectors, t_count.value>(packed, rows, row, x, t, y, y_stride);
    });
  }
  for (; row < end; row += kWidth) {
    for_token_tiles(x.tokens, [&](auto t_count, int64_t t) {
      float_rows<Value, 1, t_count.value>(packed, rows, row, x, t, y, y_stride);
    });
  }
}
