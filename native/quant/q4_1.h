// Q4_1: 32 nibbles, a half scale and a half minimum, x = d * q + m.
#pragma once

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/nibbles.h"

namespace edgeinfer {

struct Q4_1 {
  static constexpr const char* kName = "q4_1";
  static constexpr int kGgmlId = 3;
  static constexpr int kBlock = 32;
  struct EI_PACKED Block {
    Half d;
    Half m;
    uint8_t q[kBlock / 2];  // value i low, value i + 16 high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;
  static constexpr int kBias = 0, kMaxCode = 15;
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = true;
  using Scales = HalfScalesMins;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d), m = to_float(b.m);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(codes[i]) + m;
  }

  using Fit = FitScaleMin<kMaxCode>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    b.m = f.dmin;
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
  template <class V>
  static EI_INLINE typename V::F32 min(const Scales& s, int, int lane) {
    return s.min<V>(lane);
  }
};
static_assert(sizeof(Q4_1::Block) == 20);

}  // namespace edgeinfer
