// IQ4_NL: 32 nibbles that index a table of 16 uneven levels, and one half scale,
// x = d * level[q].
#pragma once

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/nibbles.h"

namespace edgeinfer {

struct IQ4_NL {
  static constexpr const char* kName = "iq4_nl";
  static constexpr int kGgmlId = 20;
  static constexpr int kBlock = 32;
  struct EI_PACKED Block {
    Half d;
    uint8_t q[kBlock / 2];  // value i low, value i + 16 high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;
  static constexpr int kBias = 127, kMaxCode = 240;
  /// The levels -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, plus kBias.
  static constexpr uint8_t kTable[16] = {0,   23,  44,  62,  78,  92,  105, 117,
                                         128, 140, 152, 165, 180, 196, 216, 240};
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = false;
  using Scales = HalfScales;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(kTable[codes[i]] - kBias);
  }

  using Fit = FitScale<LevelGrid<Levels<16>::of(kTable, kBias)>, 9>;

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
static_assert(sizeof(IQ4_NL::Block) == 18);

}  // namespace edgeinfer
