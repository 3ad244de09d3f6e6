// IQ2_S: as IQ2_XS, with 1024 points and all eight signs.
#pragma once

#include "quant/iq2_xxs.h"

namespace edgeinfer {

struct IQ2_S {
  static constexpr const char* kName = "iq2_s";
  static constexpr int kGgmlId = 22;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint8_t points[kBlock / 8];  // the lower eight bits of the point
    uint8_t signs[kBlock / 8];
    uint8_t high[kBlock / 32];    // bits 2 * j and up: the upper two bits of point 4 * i + j
    uint8_t scales[kBlock / 32];  // of values 32 * i and up low, of 32 * i + 16 and up high
  };

  static constexpr int kLowBits = IQ2_XXS::kLowBits, kHighBits = IQ2_XXS::kHighBits;
  static constexpr bool kRepacked = true;
  static constexpr int kBias = IQ2_XXS::kBias, kMaxCode = IQ2_XXS::kMaxCode;
  static constexpr const uint8_t (&kTable)[16] = IQ2_XXS::kTable;
  static constexpr int kBesideCode = IQ2_XXS::kBesideCode;
  static constexpr int kScaleBlock = 16, kScaleMask = 15;
  static constexpr float kFactor = IQ2_XXS::kFactor;
  static constexpr bool kMins = false;
  using Scales = OddScales<IQ2_S>;

  static void decode(const Block& b, float* x) { decode_levels<IQ2_S>(b, x); }

  static constexpr const auto& kGrid = kIq2SGrid;
  static constexpr Beside kBeside = Beside::kSigns;
  using Fit = FitPoints<IQ2_S>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (auto& high : b.high) high = 0;
    for (int i = 0; i < kBlock / 8; ++i) {
      const int point = find_point<IQ2_S>(f.codes + 8 * i);
      b.points[i] = static_cast<uint8_t>(point);
      b.high[i / 4] |= static_cast<uint8_t>(point >> 8 << (2 * (i % 4)));
      b.signs[i] = bits_beside<IQ2_S>(f.codes + 8 * i);
    }
    for (int i = 0; i < kBlock / 32; ++i) b.scales[i] = join_nibble_pair(f.scales + 2 * i);
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    const auto point = [&](int i) {
      return kIq2SGrid[b.points[i] | (b.high[i / 4] >> (2 * (i % 4)) & 3) << 8];
    };
    for (int i = 0; i < kBlock / 8; i += 2) {
      const Octets minus = where_set(b.signs[i], b.signs[i + 1], kBesideCode);
      store_points(point(i), point(i + 1), minus, codes + 8 * i);
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    split_nibble_pairs(b.scales, kBlock / 32, scales);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
};
static_assert(sizeof(IQ2_S::Block) == 82);

}  // namespace edgeinfer
