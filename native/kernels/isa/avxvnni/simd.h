// AVX2 with AVX-VNNI (VEX encoded VPDPBUSD, from Alder Lake and Zen 5 on): AVX2's vectors with
// another dot product.
#pragma once

#include "kernels/isa/avx2/simd.h"

namespace edgeinfer::avxvnni {

struct Simd : avx2::Simd {
  template <int kMaxCode>
  static constexpr int kOperandOffset = 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    return codes;
  }
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    unroll<4>(EI_LAMBDA(j) {
      const I32 four = broadcast_four(q + 4 * j);
      unroll<N>(EI_LAMBDA(v) { acc[v] = _mm256_dpbusd_avx_epi32(acc[v], w[v][first + j], four); });
    });
  }
};

}  // namespace edgeinfer::avxvnni
