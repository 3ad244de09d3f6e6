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
  template <int kMaxCode>
  static EI_INLINE I32 dot16(I32 acc, const I32* w, const Quad* q) {
    for (int j = 0; j < 4; ++j) acc = _mm256_dpbusd_avx_epi32(acc, w[j], q[j]);
    return acc;
  }
};

}  // namespace edgeinfer::avxvnni
