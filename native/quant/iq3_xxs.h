// IQ3_XXS: 256 values of magnitudes 4, 12, 20, 28, 36, 44, 52, 62, four of them one of 256 points,
// with the sign of each (of eight the last is the parity of seven) and a four-bit scale per 32,
// x = d * (2 * scale + 1) / 4 * level. The levels here are halved, so that their products fit 16
// bits twice.
#pragma once

#include <cstring>

#include "quant/fits.h"
#include "quant/iq_grids.h"
#include "quant/iq_scales.h"

namespace edgeinfer {

struct IQ3_XXS {
  static constexpr const char* kName = "iq3_xxs";
  static constexpr int kGgmlId = 18;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint8_t points[kBlock / 4];
    uint32_t signs[kBlock / 32];  // bits 7 * j and up: of values 8 * j and up; then the scale
  };

  static constexpr int kLowBits = 4, kHighBits = 0;  // rank of the magnitude and minus
  static constexpr bool kRepacked = true;
  static constexpr int kBias = 31, kMaxCode = 62;
  /// The levels 2 6 10 14 18 22 26 31 and their negatives, plus kBias.
  static constexpr uint8_t kTable[16] = {33, 37, 41, 45, 49, 53, 57, 62,
                                         29, 25, 21, 17, 13, 9,  5,  0};
  static constexpr int kBesideCode = 8;
  static constexpr int kScaleBlock = 32, kScaleMask = 15;
  static constexpr float kFactor = 1.0f / 2;
  static constexpr bool kMins = false;
  using Scales = OddScales<IQ3_XXS>;

  static void decode(const Block& b, float* x) { decode_levels<IQ3_XXS>(b, x); }

  static constexpr const auto& kGrid = kIq3XxsGrid;
  static constexpr Beside kBeside = Beside::kEvenSigns;
  using Fit = FitPoints<IQ3_XXS>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (int i = 0; i < kBlock / 4; ++i) {
      b.points[i] = static_cast<uint8_t>(find_point<IQ3_XXS>(f.codes + 4 * i));
    }
    for (int s = 0; s < kBlock / 32; ++s) {
      uint32_t signs = static_cast<uint32_t>(f.scales[s]) << 28;
      for (int j = 0; j < 4; ++j) {
        signs |= (bits_beside<IQ3_XXS>(f.codes + 32 * s + 8 * j) & 127u) << (7 * j);
      }
      b.signs[s] = signs;
    }
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    const auto eight = [&](int i) {  // values 8 * i and up
      return join_points(kIq3XxsGrid[b.points[2 * i]], kIq3XxsGrid[b.points[2 * i + 1]]);
    };
    for (int i = 0; i < kBlock / 8; i += 2) {
      const uint32_t signs = b.signs[i / 4] >> (7 * (i % 4));
      const Octets minus =
          where_set(with_eighth_sign(signs), with_eighth_sign(signs >> 7), kBesideCode);
      store_points(eight(i), eight(i + 1), minus, codes + 8 * i);
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    for (int s = 0; s < kBlock / 32; ++s) scales[s] = static_cast<uint8_t>(b.signs[s] >> 28);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
};
static_assert(sizeof(IQ3_XXS::Block) == 98);

}  // namespace edgeinfer
