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

/// One vector of rows of a step of codes.
template <class Q>
struct StepRows {
  const uint8_t* codes;              // of the step, and already at the vector's rows
  const typename Q::Scales* scales;  // of the block
  int step, lane;                    // its place there
};

/// Expands dwords [First, First + Count) of one vector of rows.
template <class Q, int First = 0, int Count = 8>
EI_INLINE void expand_codes(const StepRows<Q>& rows, Ints* codes) {
  const uint8_t* step = rows.codes;
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
    if constexpr (SharedBitsType<Q>) {
      const Ints shared = Q::template shared_bits<V>(*rows.scales, rows.step, j, rows.lane);
      code = V::bit_or(code, shared);
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

/// What is added to codes that have a bias, where many tokens share them and a dot product takes
/// any unsigned byte: the bias is then the same for all types, and a token's start of the sums one
/// broadcast from memory.
template <class Q>
constexpr int kLift =
    V::kOperandOffset<255> == 0 && Q::kBias > 0 ? ActBlock::kLiftedBias - Q::kBias : 0;

/// Expands a step's codes for N vectors of rows, lifted.
template <class Q, int N>
EI_INLINE void expand_lifted(const StepRows<Q>* steps, Ints (*codes)[8]) {
  unroll<N>(EI_LAMBDA(v) {
    expand_codes<Q>(steps[v], codes[v]);
    if constexpr (kLift<Q> > 0) {
      unroll<8>(
          EI_LAMBDA(j) { codes[v][j] = V::add(codes[v][j], V::set_i32(0x01010101 * kLift<Q>)); });
    }
  });
}

/// The exact integer sums of one half of a step for N vectors of rows, whose codes are lifted.
template <class Q, int N, int Lift>
EI_INLINE void half_sums(const Ints (*codes)[8], const ActBlock& a, int half, Ints* sums) {
  constexpr int kCenter = Lift + Q::kBias - V::kOperandOffset<Q::kMaxCode>;
  const int32_t start = kCenter == ActBlock::kLiftedBias ? a.start[half] : -kCenter * a.sum(half);
  unroll<N>(EI_LAMBDA(v) { sums[v] = V::set_i32(start); });
  V::template dot<Q::kMaxCode, N>(sums, codes, 4 * half, a.q + 16 * half);
}

/// The products of one step for one vector of rows and one token, from its half_sums as floats, but
/// for the factor `product_factor`. The ratio is a power of two, but what saves a multiplication
/// then has to serve several vectors, N, to be worth it. Both ways round once, to the same bits.
template <class Q, int N>
EI_INLINE Floats step_product(Floats f0, Floats f1, const Floats* scale, const ActBlock& a) {
  const Floats ratio = V::set(a.ratio), log2 = V::set(a.exponent);
  if constexpr (Q::kScaleBlock == 32) {
    return N == 1 ? V::fma(f1, ratio, f0) : V::fma_pow2(f1, ratio, log2, f0);
  } else {
    const Floats g1 = N == 1 ? V::mul(f1, ratio) : V::mul_pow2(f1, ratio, log2);
    return V::fma(scale[1], g1, V::mul(scale[0], f0));
  }
}
template <class Q>
EI_INLINE Floats product_factor(const Floats* scale, const ActBlock& a) {
  const Floats x = V::set(a.scale);
  return Q::kScaleBlock == 32 ? V::mul(scale[0], x) : x;
}

/// acc + the step for one vector of rows and one token.
template <class Q>
EI_INLINE Floats add_step(Floats product, Floats factor, const Floats* min, const ActBlock& a,
                          Floats acc) {
  if constexpr (Q::kMins && Q::kScaleBlock == 32) {
    acc = V::fnma(min[0], V::set(a.total_all), acc);
  } else if constexpr (Q::kMins) {
    acc = V::fnma(min[0], V::set(a.total[0]), acc);
    acc = V::fnma(min[1], V::set(a.total[1]), acc);
  }
  return V::fma(product, factor, acc);
}
