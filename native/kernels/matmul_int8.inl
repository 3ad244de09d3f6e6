// Matrix product of quantised weights and int8 activations.
//
// A step of 32 k is expanded once into code registers (8 dwords of k for every vector of rows)
// and the tokens stream over it: their integer sums per 16 k are exact and are scaled into
// float accumulators. Many tokens keep those in a small tile of memory ("register stationary"
// weights); a few tokens keep them in registers while the weights pass once. Both do the same
// operations in the same order, so a token's result does not depend on its company.

inline constexpr int64_t kTokensPerTile = 128;  // accumulators and a step's activations fit L1

/// Expands the codes of one vector of rows; `step` is already at the vector's dwords.
template <class Q>
EI_INLINE void expand_codes(const uint8_t* step, Ints* codes) {
  unroll<8>(EI_LAMBDA(j) {
    constexpr int kLow = Q::kLowBits;
    constexpr int kLowVector = j % kLow, kLowShift = kLow * (j / kLow);
    Ints code = V::load_i32(step + 64 * kLowVector);
    if constexpr (kLowShift > 0) code = V::shift_right<kLowShift>(code);
    if constexpr (kLow < 8) {
      code = V::bit_and(code, V::set_i32(0x01010101 * ((1 << kLow) - 1)));
    }
    if constexpr (Q::kHighBits > 0) {
      constexpr int kHigh = Q::kHighBits;
      constexpr int kVector = j % kHigh, kShift = kHigh * (j / kHigh) - kLow;
      Ints high = V::load_i32(step + Packed<Q>::kLowBytes + 64 * kVector);
      if constexpr (kShift > 0) high = V::shift_right<kShift>(high);
      if constexpr (kShift < 0) high = V::shift_left<-kShift>(high);
      constexpr int kMask = ((1 << kHigh) - 1) << kLow;
      code = V::bit_or(code, V::bit_and(high, V::set_i32(0x01010101 * kMask)));
    }
    if constexpr (TableType<Q>) code = V::lookup(Q::kTable, code);
    codes[j] = V::template operand<Q::kMaxCode>(code);
  });
}

/// The scales (and minimums) of a block for one vector of rows.
template <class Q>
struct BlockScales {
  static constexpr int kSubs = Q::kBlock / Q::kScaleBlock;
  static constexpr int kPerStep = kStep / Q::kScaleBlock;
  Floats scale[kSubs];
  Floats min[Q::kMins ? kSubs : 1];

  EI_INLINE void expand(const typename Q::Scales& s, int lane) {
    unroll<kSubs>(EI_LAMBDA(sub) {
      scale[sub] = Q::template scale<V>(s, sub, lane);
      if constexpr (Q::kMins) min[sub] = Q::template min<V>(s, sub, lane);
    });
  }
};

/// Asks for the step (and its share of scales) that kPrefetchBytes ahead will be.
template <class Q>
EI_INLINE void prefetch_step(const uint8_t* step) {
  constexpr int kLines = (Packed<Q>::kBlockBytes / Packed<Q>::kSteps + 63) / 64;
  unroll<kLines>(EI_LAMBDA(i) { V::prefetch(step + kPrefetchBytes + 64 * i); });
}

/// The activations of one token and step as the operands of step_sum.
template <class Q>
struct TokenStep {
  static constexpr int kCenter = Q::kBias - V::kOperandOffset<Q::kMaxCode>;
  const int8_t* q;
  Ints start[2];
  Floats scale[2];
  Floats total[2];

  EI_INLINE explicit TokenStep(const ActBlock& a) : q(a.q) {
    unroll<2>(EI_LAMBDA(h) {
      start[h] = V::set_i32(-kCenter * a.sum[h]);
      scale[h] = V::set(a.scale[h]);
      if constexpr (Q::kMins && Q::kScaleBlock == 16) total[h] = V::set(a.total[h]);
    });
    if constexpr (Q::kMins && Q::kScaleBlock == 32) total[0] = V::set(a.total_all);
  }
};

/// The exact integer sums of one half of a step for N vectors of rows, as floats.
template <class Q, int N>
EI_INLINE void half_sums(const Ints (*codes)[8], const TokenStep<Q>& x, int half, Floats* sums) {
  Ints acc[N];
  unroll<N>(EI_LAMBDA(v) { acc[v] = x.start[half]; });
  V::template dot16<Q::kMaxCode, N>(acc, codes, 4 * half, x.q + 16 * half);
  unroll<N>(EI_LAMBDA(v) { sums[v] = V::to_f32(acc[v]); });
}

/// acc + the products of one step for one vector of rows and one token, from its half_sums.
template <class Q>
EI_INLINE Floats step_sum(Floats f0, Floats f1, const Floats* scale, const Floats* min,
                          const TokenStep<Q>& x, Floats acc) {
  if constexpr (Q::kScaleBlock == 32) {
    acc = V::fma(scale[0], V::fma(f1, x.scale[1], V::mul(f0, x.scale[0])), acc);
  } else {
    acc = V::fma(V::mul(scale[0], x.scale[0]), f0, acc);
    acc = V::fma(V::mul(scale[1], x.scale[1]), f1, acc);
  }
  if constexpr (Q::kMins) {
    acc = V::fnma(min[0], x.total[0], acc);
    if constexpr (Q::kScaleBlock == 16) acc = V::fnma(min[1], x.total[1], acc);
  }
  return acc;
}

/// Streams `tokens` tokens over one step of N vectors of rows; acc (tokens, N * kWidth). The
/// activations of the next step begin `next` blocks on.
template <class Q, int N>
EI_NOINLINE void stream_tokens(const uint8_t* const* steps, const BlockScales<Q>* scales, int sub,
                               const ActBlock* a, int64_t next, int64_t tokens, float* acc) {
  Ints codes[N][8];
  Floats scale[N][2], min[N][2];
  unroll<N>(EI_LAMBDA(v) {
    expand_codes<Q>(steps[v], codes[v]);
    unroll<BlockScales<Q>::kPerStep>(EI_LAMBDA(i) {
      scale[v][i] = scales[v].scale[sub + i];
      if constexpr (Q::kMins) min[v][i] = scales[v].min[sub + i];
    });
  });
  for (int64_t t = 0; t < tokens; ++t, acc += N * kWidth) {
    V::prefetch(a + t + next);
    const TokenStep<Q> x(a[t]);
    Floats f[2][N];
    unroll<2>(EI_LAMBDA(h) { half_sums<Q, N>(codes, x, h, f[h]); });
    unroll<N>(EI_LAMBDA(v) {
      float* p = acc + v * kWidth;
      V::store(p, step_sum<Q>(f[0][v], f[1][v], scale[v], min[v], x, V::load(p)));
    });
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
  const uint8_t* block[N];
  int lane[N];
  unroll<N>(EI_LAMBDA(v) {
    const int64_t r = row + v * kWidth;
    block[v] = packed + r / kGroupRows * group_bytes;
    lane[v] = static_cast<int>(r % kGroupRows);
  });
  for (int64_t b = 0; b < x.cols / Q::kBlock; ++b) {
    BlockScales<Q> scales[N];
    unroll<N>(EI_LAMBDA(v) { scales[v].expand(P::scales(block[v]), lane[v]); });
    for (int s = 0; s < P::kSteps; ++s, a += x.tokens) {
      const uint8_t* steps[N];
      unroll<N>(EI_LAMBDA(v) {
        const uint8_t* step = block[v] + s * P::kStepBytes;
        steps[v] = step + 4 * lane[v];
        prefetch_step<Q>(step);
      });
      stream_tokens<Q, N>(steps, scales, s * BlockScales<Q>::kPerStep, a, x.tokens, tokens, acc);
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

/// A few tokens (T): one linear pass over a group, all accumulators in registers.
template <class Q, int T>
EI_NOINLINE void multiply_group(const uint8_t* group, int64_t rows, int64_t row,
                                const Activations& x, int64_t t0, float* y, int64_t y_stride) {
  using P = Packed<Q>;
  Floats acc[T][kParts];
  unroll<T>(EI_LAMBDA(t) { unroll<kParts>(EI_LAMBDA(v) { acc[t][v] = V::set(0); }); });
  const ActBlock* a = x.blocks + t0;
  for (int64_t b = 0; b < x.cols / Q::kBlock; ++b, group += P::kBlockBytes) {
    BlockScales<Q> scales[kParts];
    unroll<kParts>(EI_LAMBDA(v) { scales[v].expand(P::scales(group), v * kWidth); });
    for (int s = 0; s < P::kSteps; ++s, a += x.tokens) {
      const uint8_t* step = group + s * P::kStepBytes;
      prefetch_step<Q>(step);
      const int sub = s * BlockScales<Q>::kPerStep;
      unroll<kParts>(EI_LAMBDA(v) {
        Ints codes[1][8];
        expand_codes<Q>(step + 4 * kWidth * v, codes[0]);
        unroll<T>(EI_LAMBDA(t) {
          const TokenStep<Q> token(a[t]);
          Floats f[2][1];
          unroll<2>(EI_LAMBDA(h) { half_sums<Q, 1>(codes, token, h, f[h]); });
          acc[t][v] = step_sum<Q>(f[0][0], f[1][0], scales[v].scale + sub,
                                  scales[v].min + (Q::kMins ? sub : 0), token, acc[t][v]);
        });
      });
    }
  }
  unroll<T>(EI_LAMBDA(t) {
    unroll<kParts>(EI_LAMBDA(v) {
      const int64_t r = row + v * kWidth;
      if (r < rows) store_rows(y + (t0 + t) * y_stride + r, acc[t][v], rows - r);
    });
  });
}

template <class Q>
void matmul_int8(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1, const Activations& x,
                 float* y, int64_t y_stride) {
  const int64_t group_bytes = packed_group_bytes<Q>(x.cols);
  if (x.tokens <= 4) {
    for (int64_t g = g0; g < g1; ++g) {
      const uint8_t* group = packed + g * group_bytes;
      const int64_t row = g * kGroupRows;
      if (x.tokens == 1) multiply_group<Q, 1>(group, rows, row, x, 0, y, y_stride);
      if (x.tokens == 2) multiply_group<Q, 2>(group, rows, row, x, 0, y, y_stride);
      if (x.tokens == 3) multiply_group<Q, 3>(group, rows, row, x, 0, y, y_stride);
      if (x.tokens == 4) multiply_group<Q, 4>(group, rows, row, x, 0, y, y_stride);
    }
    return;
  }
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
