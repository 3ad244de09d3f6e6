// What no kernel can exceed, measured by the same instructions that the kernels use: reading
// weights and doing nothing with them, and the integer dot product of codes in registers.

/// Chains enough to hide the latency of a dot product. Where that is made of additions (no dot
/// product instruction, so the codes' offset shows), four are enough, and more would be spilled.
inline constexpr int kPeakTokens = V::kOperandOffset<255> != 0 && V::kRowVectors == 1 ? 4 : 8;
/// The rows' vectors that one dot product takes: as many as hold 4 registers of codes each beside
/// the chains; also on machines with 16 registers there is room for one.
inline constexpr int kPeakVectors = V::kRowVectors > 1 ? 2 : 1;

/// A number that depends on all words, only so that reading them cannot be left out.
EI_NOINLINE int32_t read_all(const uint8_t* p, int64_t bytes) {
  constexpr int kStreams = 4;
  constexpr int64_t kVectorBytes = 4 * kWidth;
  Ints seen[kStreams];
  unroll<kStreams>(EI_LAMBDA(i) { seen[i] = V::set_i32(0); });
  for (int64_t at = 0; at + kStreams * kVectorBytes <= bytes; at += kStreams * kVectorBytes) {
    unroll<kStreams>(
        EI_LAMBDA(i) { seen[i] = V::bit_or(seen[i], V::load_i32(p + at + i * kVectorBytes)); });
  }
  const Ints all = V::bit_or(V::bit_or(seen[0], seen[1]), V::bit_or(seen[2], seen[3]));
  return V::sum(V::bit_and(all, V::set_i32(0xff)));  // small, so that the sum does not overflow
}

/// Multiplies the activations, which stay in the first cache, by 4-bit codes, which every
/// instruction set multiplies fastest. The activations differ and pass in a loop, or a compiler
/// would form each product once.
EI_NOINLINE int32_t dot_all(const int8_t* q, int64_t bytes, int64_t* macs) {
  constexpr int kMaxCode = 15;
  Ints codes[kPeakVectors][8];
  Ints acc[kPeakTokens][kPeakVectors];
  unroll<kPeakVectors>(EI_LAMBDA(v) {
    unroll<8>(EI_LAMBDA(j) {
      codes[v][j] = V::template operand<kMaxCode>(V::set_i32(0x01010101 * (v + j + 1)));
    });
    unroll<kPeakTokens>(EI_LAMBDA(t) { acc[t][v] = V::set_i32(0); });
  });
  constexpr int64_t kStride = 16 * kPeakTokens;
  int64_t at = 0;
  for (; at + kStride <= bytes; at += kStride) {
    unroll<kPeakTokens>(EI_LAMBDA(t) {
      V::template dot<kMaxCode, kPeakVectors>(acc[t], codes, 0, q + at + 16 * t);
    });
  }
  *macs += at * kPeakVectors * kWidth;
  Ints sum = V::set_i32(0);
  unroll<kPeakTokens>(
      EI_LAMBDA(t) { unroll<kPeakVectors>(EI_LAMBDA(v) { sum = V::add(sum, acc[t][v]); }); });
  return V::sum(sum);
}
