// Q4_0: 32 nibbles with an offset of 8 and one half scale, x = d * (q - 8).
#pragma once

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/nibbles.h"

namespace edgeinfer {

struct Q4_0 {
  static constexpr const char* kName = "q4_0";
  static constexpr int kGgmlId = 2;
  static constexpr int kBlock = 32;
  struct EI_PACKED Block {
    Half d;
    uint8_t q[kBlock / 2];  // value i low, value i + 16 high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;
  static constexpr int kBias = 8, kMaxCode = 15;
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = false;
  using Scales = HalfScales;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(codes[i] - kBias);
  }

  using Fit = FitScale<Integers<-kBias, kMaxCode - kBias>, 0>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    join_nibbles(f.codes, b.q);
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) { split_nibbles(b.q, codes); }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int, int lane) {
    return s.scale<V>(lane);
  }
};
static_assert(sizeof(Q4_0::Block) == 18);

}  // namespace edgeinfer
