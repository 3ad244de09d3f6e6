// NEON with the dot product of ARMv8.2: SDOT multiplies 4 rows x 4 k by any four of 16 activations.
#pragma once

#include "kernels/isa/neon/simd.h"

namespace edgeinfer::neon_dotprod {

struct Simd : neon::Simd {
  static constexpr int kRowVectors = 2;  // 16 code registers of 32
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    const int8x16_t x = vld1q_s8(q);
    unroll<4>(EI_LAMBDA(j) {
      unroll<N>(EI_LAMBDA(v) {
        acc[v] = vdotq_laneq_s32(acc[v], vreinterpretq_s8_s32(w[v][first + j]), x, j);
      });
    });
  }
};

}  // namespace edgeinfer::neon_dotprod
