// IQ4_XS: the levels of IQ4_NL in 8 sub-blocks of 32 with a six-bit scale each, offset by 32:
// x = (d * (scale - 32)) * level[q].
#pragma once

#include "quant/fits.h"
#include "quant/iq4_nl.h"
#include "quant/six_bits.h"

namespace edgeinfer {

struct IQ4_XS {
  static constexpr const char* kName = "iq4_xs";
  static constexpr int kGgmlId = 23;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint16_t scales_high;             // bits 2 * s and up: upper two bits of scale s
    uint8_t scales_low[kBlock / 64];  // nibble s: lower four bits of scale s
    uint8_t q[kBlock / 2];            // byte 16 * s + i: value 32 * s + i low, + 16 high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;
  static constexpr int kBias = IQ4_NL::kBias, kMaxCode = IQ4_NL::kMaxCode;
  static constexpr const uint8_t (&kTable)[16] = IQ4_NL::kTable;
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = false;
  struct Scales {
    Half d[kGroupRows];
    SixBits<2> scales;
  };

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock], scales[8];
    split(b, codes);
    split_scales(b, scales);
    const float d = to_float(b.d);
    for (int s = 0; s < 8; ++s) {
      const float scale = d * static_cast<float>(scales[s] - 32);
      for (int i = 32 * s; i < 32 * s + 32; ++i) {
        x[i] = scale * static_cast<float>(kTable[codes[i]] - kBias);
      }
    }
  }

  using Fit = FitScales<LevelGrid<Levels<16>::of(kTable, kBias)>, kScaleBlock, -32, 31>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    b.scales_high = 0;
    for (auto& low : b.scales_low) low = 0;
    for (int s = 0; s < 8; ++s) {
      const int scale = f.scales[s] + 32;
      b.scales_low[s / 2] |= static_cast<uint8_t>((scale & 15) << (4 * (s % 2)));
      b.scales_high = static_cast<uint16_t>(b.scales_high | (scale >> 4) << (2 * s));
      join_nibbles(f.codes + 32 * s, b.q + 16 * s);
    }
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    for (int s = 0; s < 8; ++s) split_nibbles(b.q + 16 * s, codes + 32 * s);
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    for (int s = 0; s < 8; ++s) {
      scales[s] = static_cast<uint8_t>((b.scales_low[s / 2] >> (4 * (s % 2)) & 15) |
                                       (b.scales_high >> (2 * s) & 3) << 4);
    }
  }

  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      uint8_t scales[8] = {};
      if (rows[r]) split_scales(*rows[r], scales);
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      out.scales.put(r, scales);
    }
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    const auto code = V::sub(s.scales.template get<V>(sub, lane), V::set_i32(32));
    return V::mul(V::load_half(s.d + lane), V::to_f32(code));
  }
};
static_assert(sizeof(IQ4_XS::Block) == 136);

}  // namespace edgeinfer
