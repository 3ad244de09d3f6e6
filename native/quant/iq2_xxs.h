// IQ2_XXS: 256 values of magnitudes 8, 25, 43, eight of them one of 256 points, with the sign of
// each (the eighth is the parity of seven) and a four-bit scale per 32,
// x = d * (2 * scale + 1) / 8 * level.
#pragma once

#include "quant/fits.h"
#include "quant/iq_grids.h"
#include "quant/iq_scales.h"

namespace edgeinfer {

struct IQ2_XXS {
  static constexpr const char* kName = "iq2_xxs";
  static constexpr int kGgmlId = 16;
  static constexpr int kBlock = 256;
  struct EI_PACKED Run {
    uint8_t points[4];  // values 8 * i and up
    uint32_t signs;     // bits 7 * i and up: signs of point i; the upper four bits: the scale
  };
  struct EI_PACKED Block {
    Half d;
    Run runs[kBlock / 32];
  };

  static constexpr int kLowBits = 2, kHighBits = 1;  // rank of the magnitude, minus
  static constexpr bool kRepacked = true;
  static constexpr int kBias = 43, kMaxCode = 86;
  /// The levels 8 25 43 and their negatives, plus kBias; codes 3 and 7 do not occur.
  static constexpr uint8_t kTable[16] = {51, 68, 86, 43, 35, 18, 0, 43,
                                         51, 68, 86, 43, 35, 18, 0, 43};
  static constexpr int kBesideCode = 4;
  static constexpr int kScaleBlock = 32, kScaleMask = 15;
  static constexpr float kFactor = 1.0f / 8;
  static constexpr bool kMins = false;
  using Scales = OddScales<IQ2_XXS>;

  static void decode(const Block& b, float* x) { decode_levels<IQ2_XXS>(b, x); }

  static constexpr const auto& kGrid = kIq2XxsGrid;
  static constexpr Beside kBeside = Beside::kEvenSigns;
  using Fit = FitPoints<IQ2_XXS>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (int r = 0; r < kBlock / 32; ++r) {
      uint32_t signs = static_cast<uint32_t>(f.scales[r]) << 28;
      for (int i = 0; i < 4; ++i) {
        const uint8_t* codes = f.codes + 32 * r + 8 * i;
        b.runs[r].points[i] = static_cast<uint8_t>(find_point<IQ2_XXS>(codes));
        signs |= (bits_beside<IQ2_XXS>(codes) & 127u) << (7 * i);
      }
      b.runs[r].signs = signs;
    }
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    for (int r = 0; r < kBlock / 32; ++r) {
      const uint32_t signs = b.runs[r].signs;
      for (int i = 0; i < 4; i += 2) {
        const Octets minus = where_set(with_eighth_sign(signs >> (7 * i)),
                                       with_eighth_sign(signs >> (7 * i + 7)), kBesideCode);
        store_points(kIq2XxsGrid[b.runs[r].points[i]], kIq2XxsGrid[b.runs[r].points[i + 1]], minus,
                     codes + 32 * r + 8 * i);
      }
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    for (int r = 0; r < kBlock / 32; ++r) scales[r] = static_cast<uint8_t>(b.runs[r].signs >> 28);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
};
static_assert(sizeof(IQ2_XXS::Block) == 66);

}  // namespace edgeinfer
