// Q5_K: 256 values in 8 sub-blocks of 32 five-bit codes with a scale and a minimum each (see
// k_scales.h).
#pragma once

#include "quant/fits.h"
#include "quant/k_scales.h"

namespace edgeinfer {

struct Q5_K {
  static constexpr const char* kName = "q5_k";
  static constexpr int kGgmlId = 13;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d, dmin;
    uint8_t scales[12];        // see split_k_scales
    uint8_t high[kBlock / 8];  // bit s of byte i is bit 4 of value 32 * s + i
    uint8_t q[kBlock / 2];     // byte 32 * c + i: value 64 * c + i low, 64 * c + 32 + i high
  };

  static constexpr int kLowBits = 4, kHighBits = 1;
  static constexpr int kBias = 0, kMaxCode = 31;
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = true;
  using Scales = KScalesMins;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock], scales[8], mins[8];
    split(b, codes);
    split_k_scales(b.scales, scales, mins);
    const float d = to_float(b.d), dmin = to_float(b.dmin);
    for (int s = 0; s < 8; ++s) {
      const float scale = d * scales[s], min = dmin * mins[s];
      for (int i = 32 * s; i < 32 * s + 32; ++i) x[i] = scale * codes[i] - min;
    }
  }

  using Fit = FitScalesMins<kMaxCode, kScaleBlock, 63>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    b.dmin = f.dmin;
    uint8_t scales[8], mins[8];
    for (int s = 0; s < 8; ++s) {
      scales[s] = static_cast<uint8_t>(f.scales[s]);
      mins[s] = static_cast<uint8_t>(f.mins[s]);
    }
    join_k_scales(scales, mins, b.scales);
    join_k_nibbles(f.codes, b.q);
    take_high_bits(f.codes, 4, b.high);
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    split_k_nibbles(b.q, codes);
    add_high_bits(b.high, 16, codes);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
  template <class V>
  static EI_INLINE typename V::F32 min(const Scales& s, int sub, int lane) {
    return s.min<V>(sub, lane);
  }
};
static_assert(sizeof(Q5_K::Block) == 176);

}  // namespace edgeinfer
