// NEON with the mixed-sign products of ARMv8.6: USDOT takes codes above 127 as they are.
//
// Its matrix products (USMMLA on pairs of tokens) are left alone: with a scale per 16 activations
// only two of them follow each other, and taking their 2 x 2 results apart costs what they save
// (82 instructions for two tokens of Q4_0 and eight rows, where USDOT has 88).
#pragma once

#include "kernels/isa/neon_dotprod/simd.h"

namespace edgeinfer::neon_i8mm {

struct Simd : neon_dotprod::Simd {
  template <int kMaxCode>
  static constexpr int kOperandOffset = 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    return codes;
  }
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    const int8x16_t x = vld1q_s8(q);
    unroll<4>(EI_LAMBDA(j) {
      unroll<N>(EI_LAMBDA(v) {
        acc[v] = vusdotq_laneq_s32(acc[v], vreinterpretq_u8_s32(w[v][first + j]), x, j);
      });
    });
  }
};

}  // namespace edgeinfer::neon_i8mm
