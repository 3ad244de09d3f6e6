// IQ1_M: as IQ1_S, with a three-bit scale per 16 and a shift per 8; the half that multiplies the
// scales is spread over them.
#pragma once

#include "quant/iq1_s.h"

namespace edgeinfer {

struct IQ1_M {
  static constexpr const char* kName = "iq1_m";
  static constexpr int kGgmlId = 29;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t points[kBlock / 8];    // the lower eight bits of the point
    uint8_t high[kBlock / 16];     // nibble j: the upper three bits of point 2 * i + j, then down
    uint16_t scales[kBlock / 64];  // bits 3 * j and up: scale 4 * i + j; 12..15: nibble i of d
  };

  static constexpr int kLowBits = IQ1_S::kLowBits, kHighBits = IQ1_S::kHighBits;
  static constexpr bool kRepacked = true;
  static constexpr int kBias = IQ1_S::kBias, kMaxCode = IQ1_S::kMaxCode;
  static constexpr const uint8_t (&kTable)[16] = IQ1_S::kTable;
  static constexpr int kBesideCode = IQ1_S::kBesideCode;
  static constexpr int kScaleBlock = 16, kScaleMask = 7;
  static constexpr float kFactor = IQ1_S::kFactor;
  static constexpr bool kMins = false;
  struct Scales {
    OddScales<IQ1_M> odd;                    // bit 3 of a nibble: the first eight of 16 go down
    uint8_t down[kBlock / 128][kGroupRows];  // bit i: the second eight of sub-block 8 * i' + i do
  };

  static void decode(const Block& b, float* x) { decode_levels<IQ1_M>(b, x); }

  static constexpr const auto& kGrid = kIq1Grid;
  static constexpr Beside kBeside = Beside::kShiftOf8;
  using Fit = FitPoints<IQ1_M>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    for (int i = 0; i < kBlock / 64; ++i) {
      int scales = (f.d.bits >> (4 * i) & 15) << 12;
      for (int j = 0; j < 4; ++j) scales |= f.scales[4 * i + j] << (3 * j);
      b.scales[i] = static_cast<uint16_t>(scales);
    }
    for (auto& high : b.high) high = 0;
    for (int i = 0; i < kBlock / 8; ++i) {
      const uint8_t* codes = f.codes + 8 * i;
      const int point = find_point<IQ1_M>(codes);
      b.points[i] = static_cast<uint8_t>(point);
      b.high[i / 2] |=
          static_cast<uint8_t>((point >> 8 | (codes[0] & kBesideCode ? 8 : 0)) << (4 * (i % 2)));
    }
  }

  static EI_INLINE Half half(const Block& b) {
    int bits = 0;
    for (int i = 0; i < 4; ++i) bits |= b.scales[i] >> 12 << (4 * i);
    return {static_cast<uint16_t>(bits)};
  }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    const auto point = [&](int i) {
      return kIq1Grid[b.points[i] | (b.high[i / 2] >> (4 * (i % 2)) & 7) << 8];
    };
    for (int i = 0; i < kBlock / 8; i += 2) {
      const uint8_t high = b.high[i / 2];
      const Octets down = where_set(high & 8 ? 255 : 0, high & 128 ? 255 : 0, kBesideCode);
      store_points(point(i), point(i + 1), down, codes + 8 * i);
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    for (int s = 0; s < kBlock / 16; ++s) {
      scales[s] = static_cast<uint8_t>((b.scales[s / 4] >> (3 * (s % 4)) & 7) | (b.high[s] & 8));
    }
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    OddScales<IQ1_M>::pack(rows, out.odd);
    for (int r = 0; r < kGroupRows; ++r) {
      for (int half = 0; half < 2; ++half) {
        int down = 0;
        for (int i = 0; rows[r] && i < 8; ++i) down |= rows[r]->high[8 * half + i] >> 7 << i;
        out.down[half][r] = static_cast<uint8_t>(down);
      }
    }
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.odd.template scale<V>(sub, lane);
  }
  /// What dword j of a step has besides its packed codes.
  template <class V>
  static EI_INLINE typename V::I32 shared_bits(const Scales& s, int step, int j, int lane) {
    constexpr int kDown = 0x01010101 * kBesideCode;
    if (j % 4 < 2) return V::where_bit(V::load_u8(&s.odd.nibbles[step][lane]), 8 << (j & 4), kDown);
    return V::where_bit(V::load_u8(&s.down[step / 4][lane]), 1 << (step % 4 * 2 + j / 4), kDown);
  }
};
static_assert(sizeof(IQ1_M::Block) == 56);

}  // namespace edgeinfer
