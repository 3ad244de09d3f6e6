// TQ2_0: 256 two-bit codes with an offset of 1 and one half scale, x = d * (q - 1).
#pragma once

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/q2_k.h"

namespace edgeinfer {

struct TQ2_0 {
  static constexpr const char* kName = "tq2_0";
  static constexpr int kGgmlId = 35;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t q[kBlock / 4];  // as in Q2_K
    Half d;
  };

  static constexpr int kLowBits = 2, kHighBits = 0;
  static constexpr int kBias = 1, kMaxCode = 3;
  static constexpr int kScaleBlock = 32;  // of each 32 the same
  static constexpr bool kMins = false;
  using Scales = HalfScales;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(codes[i] - kBias);
  }

  using Fit = FitTernary;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    Q2_K::join_low_bits(f.codes, b.q);
    b.d = f.d;
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) { Q2_K::split_low_bits(b.q, codes); }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int, int lane) {
    return s.scale<V>(lane);
  }
};
static_assert(sizeof(TQ2_0::Block) == 66);

}  // namespace edgeinfer
