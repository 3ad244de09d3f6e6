// IQ2_XS: as IQ2_XXS, with 512 points and a four-bit scale per 16.
#pragma once

#include "quant/iq2_xxs.h"

namespace edgeinfer {

struct IQ2_XS {
  static constexpr const char* kName = "iq2_xs";
  static constexpr int kGgmlId = 17;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint16_t points[kBlock / 8];  // the point in nine bits, then seven signs
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
  using Scales = OddScales<IQ2_XS>;

  static void decode(const Block& b, float* x) { decode_levels<IQ2_XS>(b, x); }

  static constexpr const auto& kGrid = kIq2XsGrid;
  static constexpr Beside kBeside = Beside::kEvenSigns;
  using Fit = FitPoints<IQ2_XS>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (int i = 0; i < kBlock / 8; ++i) {
      const uint8_t* codes = f.codes + 8 * i;
      b.points[i] =
          static_cast<uint16_t>(find_point<IQ2_XS>(codes) | bits_beside<IQ2_XS>(codes) << 9);
    }
    for (int i = 0; i < kBlock / 32; ++i) b.scales[i] = join_nibble_pair(f.scales + 2 * i);
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    for (int i = 0; i < kBlock / 8; i += 2) {
      const uint16_t first = b.points[i], second = b.points[i + 1];
      const Octets minus =
          where_set(with_eighth_sign(first >> 9), with_eighth_sign(second >> 9), kBesideCode);
      store_points(kIq2XsGrid[first & 511], kIq2XsGrid[second & 511], minus, codes + 8 * i);
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
static_assert(sizeof(IQ2_XS::Block) == 74);

}  // namespace edgeinfer
