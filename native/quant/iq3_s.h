// IQ3_S: 256 values of odd magnitudes up to 15, four of them one of 512 points, with the sign of
// each and a four-bit scale per 32, x = d * (2 * scale + 1) * level.
#pragma once

#include "quant/fits.h"
#include "quant/iq_grids.h"
#include "quant/iq_scales.h"

namespace edgeinfer {

struct IQ3_S {
  static constexpr const char* kName = "iq3_s";
  static constexpr int kGgmlId = 21;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint8_t points[kBlock / 4];  // the lower eight bits of the point
    uint8_t high[kBlock / 32];   // bit j: the ninth bit of point 8 * i + j
    uint8_t signs[kBlock / 8];
    uint8_t scales[kBlock / 64];  // of values 64 * i and up low, of 64 * i + 32 and up high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;  // rank of the magnitude and minus
  static constexpr bool kRepacked = true;
  static constexpr int kBias = 15, kMaxCode = 30;
  /// The levels 1 3 5 7 9 11 13 15 and their negatives, plus kBias.
  static constexpr uint8_t kTable[16] = {16, 18, 20, 22, 24, 26, 28, 30, 14, 12, 10, 8, 6, 4, 2, 0};
  static constexpr int kBesideCode = 8;
  static constexpr int kScaleBlock = 32, kScaleMask = 15;
  static constexpr float kFactor = 1;
  static constexpr bool kMins = false;
  using Scales = OddScales<IQ3_S>;

  static void decode(const Block& b, float* x) { decode_levels<IQ3_S>(b, x); }

  static constexpr const auto& kGrid = kIq3SGrid;
  static constexpr Beside kBeside = Beside::kSigns;
  using Fit = FitPoints<IQ3_S>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (auto& high : b.high) high = 0;
    for (int i = 0; i < kBlock / 4; ++i) {
      const int point = find_point<IQ3_S>(f.codes + 4 * i);
      b.points[i] = static_cast<uint8_t>(point);
      b.high[i / 8] |= static_cast<uint8_t>(point >> 8 << (i % 8));
    }
    for (int i = 0; i < kBlock / 8; ++i) b.signs[i] = bits_beside<IQ3_S>(f.codes + 8 * i);
    for (int i = 0; i < kBlock / 64; ++i) b.scales[i] = join_nibble_pair(f.scales + 2 * i);
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    const auto point = [&](int i) {
      return kIq3SGrid[b.points[i] | (b.high[i / 8] >> (i % 8) & 1) << 8];
    };
    const auto eight = [&](int i) { return join_points(point(2 * i), point(2 * i + 1)); };
    for (int i = 0; i < kBlock / 8; i += 2) {
      const Octets minus = where_set(b.signs[i], b.signs[i + 1], kBesideCode);
      store_points(eight(i), eight(i + 1), minus, codes + 8 * i);
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    split_nibble_pairs(b.scales, kBlock / 64, scales);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
};
static_assert(sizeof(IQ3_S::Block) == 110);

}  // namespace edgeinfer
