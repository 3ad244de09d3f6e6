// One step (32 k) of quantised weights and int8 activations: what few and many tokens share.
//
// A step is expanded once into code registers (8 dwords of k for every vector of rows). A token's
// integer sums per 16 k are exact and are scaled into float accumulators. Both products do the
// same operations in the same order, so a token's result does not depend on its company.

/// A table type's bytes as operands, so that a lookup yields what `operand` would.
template <class Q>
struct OperandTable {
  uint8_t bytes[16];

  constexpr OperandTable() : bytes() {
    for (int i = 0; i < 16; ++i) {
      bytes[i] = static_cast<uint8_t>(Q::kTable[i] - V::kOperandOffset<Q::kMaxCode>);
    }
  }
};
template <class Q>
constexpr OperandTable<Q> kOperandTable;

/// Expands dwords [First, First + Count) of one vector of rows; `step` is already at the vector's.
template <class Q, int First = 0, int Count = 8>
EI_INLINE void expand_codes(const uint8_t* step, Ints* codes) {
  unroll<Count>(EI_LAMBDA(i) {
    constexpr int j = First + i;
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
    if constexpr (TableType<Q>) {
      codes[j] = V::lookup(kOperandTable<Q>.bytes, code);
    } else {
      codes[j] = V::template operand<Q::kMaxCode>(code);
    }
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
  Floats scale, ratio;
  Floats total[2];

  EI_INLINE explicit TokenStep(const ActBlock& a) : q(a.q) {
    unroll<2>(EI_LAMBDA(h) {
      start[h] = V::set_i32(-kCenter * a.sum[h]);
      if constexpr (Q::kMins && Q::kScaleBlock == 16) total[h] = V::set(a.total[h]);
    });
    scale = V::set(a.scale);
    ratio = V::set(a.ratio);
    if constexpr (Q::kMins && Q::kScaleBlock == 32) total[0] = V::set(a.total_all);
  }
};

/// The exact integer sums of one half of a step for N vectors of rows, as floats.
template <class Q, int N>
EI_INLINE void half_sums(const Ints (*codes)[8], const TokenStep<Q>& x, int half, Floats* sums) {
  Ints acc[N];
  unroll<N>(EI_LAMBDA(v) { acc[v] = x.start[half]; });
  V::template dot<Q::kMaxCode, N>(acc, codes, 4 * half, x.q + 16 * half);
  unroll<N>(EI_LAMBDA(v) { sums[v] = V::to_f32(acc[v]); });
}

/// acc + the products of one step for one vector of rows and one token, from its half_sums. The
/// ratio is a power of two, but what saves a multiplication then (the exponent of the ratio, for
/// one) has to serve several vectors, N, to be worth it. Both ways round once, to the same bits.
template <class Q, int N>
EI_INLINE Floats step_sum(Floats f0, Floats f1, const Floats* scale, const Floats* min,
                          const TokenStep<Q>& x, Floats acc) {
  if constexpr (Q::kScaleBlock == 32) {
    const Floats f = N == 1 ? V::fma(f1, x.ratio, f0) : V::fma_pow2(f1, x.ratio, f0);
    acc = V::fma(V::mul(scale[0], x.scale), f, acc);
  } else {
    const Floats g1 = N == 1 ? V::mul(f1, x.ratio) : V::mul_pow2(f1, x.ratio);
    const Floats f = V::fma(scale[1], g1, V::mul(scale[0], f0));
    acc = V::fma(f, x.scale, acc);
  }
  if constexpr (Q::kMins) {
    acc = V::fnma(min[0], x.total[0], acc);
    if constexpr (Q::kScaleBlock == 16) acc = V::fnma(min[1], x.total[1], acc);
  }
  return acc;
}
