// Many tokens: they stream over the codes of a step, which stay in registers ("register
// stationary" weights); the float accumulators of a small tile are in memory.

inline constexpr int64_t kTokensPerTile = 128;  // accumulators and a step's activations fit L1

/// Streams `tokens` tokens over one step of N vectors of rows; acc (tokens, N * kWidth). The
/// activations of the next step begin `next` blocks on.
///
/// A token's dot products, conversion, scaling and addition are one chain of some 40 cycles, and
/// the processor does not look far enough ahead to begin the next tokens meanwhile. So with several
/// vectors a token's sums are scaled between the dot products of the next one.
template <class Q, int N>
EI_INLINE void stream_tokens(const StepRows<Q>* steps, const BlockScales<Q>* scales, int sub,
                             const ActBlock* a, int64_t next, int64_t tokens, float* acc) {
  Ints codes[N][8];
  Floats scale[N][2], min[N][2];
  expand_lifted<Q, N>(steps, codes);
  unroll<N>(EI_LAMBDA(v) {
    unroll<BlockScales<Q>::kPerStep>(EI_LAMBDA(i) {
      scale[v][i] = scales[v].scale[sub + i];
      if constexpr (Q::kMins) min[v][i] = scales[v].min[sub + i];
    });
  });
  const auto sum_half =
      [&](const ActBlock& x, int half, Ints* sums)
          __attribute__((always_inline)) { half_sums<Q, N, kLift<Q>>(codes, x, half, sums); };
  // Adds the current token to its accumulators, and starts the next one's sums between.
  const auto finish = [&](Ints(*sums)[N], auto again) __attribute__((always_inline)) {
    Floats f[2][N], product[N], factor[N];
    unroll<2>(EI_LAMBDA(h) { unroll<N>(EI_LAMBDA(v) { f[h][v] = V::to_f32(sums[h][v]); }); });
    if constexpr (again) sum_half(a[1], 0, sums[0]);
    unroll<N>(EI_LAMBDA(v) {
      product[v] = step_product<Q, N>(f[0][v], f[1][v], scale[v], *a);
      factor[v] = product_factor<Q>(scale[v], *a);
    });
    if constexpr (again) sum_half(a[1], 1, sums[1]);
    unroll<N>(EI_LAMBDA(v) {
      float* p = acc + v * kWidth;
      V::store(p, add_step<Q>(product[v], factor[v], min[v], *a, V::load(p)));
    });
  };
  Ints sums[2][N];
  if constexpr (N == 1) {
    for (const ActBlock* end = a + tokens; a < end; ++a, acc += kWidth) {
      V::prefetch(a + next);
      Floats f[2];
      unroll<2>(EI_LAMBDA(h) {
        sum_half(*a, h, sums[h]);
        f[h] = V::to_f32(sums[h][0]);
      });
      const Floats product = step_product<Q, 1>(f[0], f[1], scale[0], *a);
      V::store(acc,
               add_step<Q>(product, product_factor<Q>(scale[0], *a), min[0], *a, V::load(acc)));
    }
  } else {
    unroll<2>(EI_LAMBDA(h) { sum_half(*a, h, sums[h]); });
    for (const ActBlock* last = a + tokens - 1; a < last; ++a, acc += N * kWidth) {
      V::prefetch(a + next);
      finish(sums, Index<1>{});
    }
    finish(sums, Index<0>{});
  }
}

/// Many tokens: the rows [row, row + N * kWidth) for tokens [t0, t0 + tokens).
template <class Q, int N>
EI_NOINLINE void multiply_tile(const uint8_t* packed, int64_t rows, int64_t row,
                               const Activations& x, int64_t t0, int64_t tokens, float* y,
                               int64_t y_stride) {
  using P = Packed<Q>;
  alignas(64) float acc[kTokensPerTile * N * kWidth];
  for (int64_t i = 0; i < tokens * N; ++i) V::store(acc + i * kWidth, V::set(0));
  const int64_t group_bytes = packed_group_bytes<Q>(x.cols);
  const ActBlock* a = x.blocks + t0;
  // What follows the end of a group in memory is not what these rows read next.
  const int64_t skip = (N * kWidth > kGroupRows ? N * kWidth / kGroupRows - 1 : 0) * group_bytes;
  const uint8_t *block[N], *end[N];
  int lane[N];
  unroll<N>(EI_LAMBDA(v) {
    const int64_t r = row + v * kWidth;
    block[v] = packed + r / kGroupRows * group_bytes;
    end[v] = block[v] + group_bytes;
    lane[v] = static_cast<int>(r % kGroupRows);
  });
  for (int64_t b = 0; b < x.cols / Q::kBlock; ++b) {
    BlockScales<Q> scales[N];
    unroll<N>(EI_LAMBDA(v) { scales[v].expand(P::scales(block[v]), lane[v]); });
    for (int s = 0; s < P::kSteps; ++s, a += x.block_stride) {
      StepRows<Q> steps[N];
      unroll<N>(EI_LAMBDA(v) {
        const uint8_t* step = block[v] + s * P::kStepBytes;
        steps[v] = {step + 4 * lane[v], &P::scales(block[v]), s, lane[v]};
        prefetch_step<Q>(step + (step + kPrefetchBytes < end[v] ? 0 : skip));
      });
      stream_tokens<Q, N>(steps, scales, s * BlockScales<Q>::kPerStep, a, x.block_stride, tokens,
                          acc);
    }
    unroll<N>(EI_LAMBDA(v) { block[v] += P::kBlockBytes; });
  }
  for (int64_t t = 0; t < tokens; ++t) {
    unroll<N>(EI_LAMBDA(v) {
      const int64_t r = row + v * kWidth;
      store_rows(y + (t0 + t) * y_stride + r, V::load(acc + (t * N + v) * kWidth), rows - r);
    });
  }
}

template <class Q>
EI_INLINE void matmul_many(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1,
                           const Activations& x, float* y, int64_t y_stride) {
  const int64_t end = g1 * kGroupRows < rows ? g1 * kGroupRows : rows;
  for (int64_t t0 = 0; t0 < x.tokens; t0 += kTokensPerTile) {
    const int64_t tokens = x.tokens - t0 < kTokensPerTile ? x.tokens - t0 : kTokensPerTile;
    int64_t row = g0 * kGroupRows;
    for (; row + (V::kRowVectors - 1) * kWidth < end; row += V::kRowVectors * kWidth) {
      multiply_tile<Q, V::kRowVectors>(packed, rows, row, x, t0, tokens, y, y_stride);
    }
    for (; row < end; row += kWidth) {
      multiply_tile<Q, 1>(packed, rows, row, x, t0, tokens, y, y_stride);
    }
  }
}
