// IQ1_S: 256 values -1, 0, 1, eight of them one of 2048 points, with a three-bit scale and the
// sign of a shift by 1/8 per 32, x = d * (2 * scale + 1) * (value + shift). The levels here are
// eight times that: 1, 0 and -1 are 9, 1, -7 shifted up and 7, -1, -9 shifted down. Packed, a code
// has two bits and the shift, its third, is beside the scale.
#pragma once

#include "quant/fits.h"
#include "quant/iq_grids.h"
#include "quant/iq_scales.h"

namespace edgeinfer {

struct IQ1_S {
  static constexpr const char* kName = "iq1_s";
  static constexpr int kGgmlId = 19;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    Half d;
    uint8_t points[kBlock / 8];  // the lower eight bits of the point
    /// Bits 3 * j and up: the upper three of point 4 * i + j; 12..14: the scale; 15: down.
    uint16_t high[kBlock / 32];
  };

  static constexpr int kLowBits = 2, kHighBits = 0;
  static constexpr bool kRepacked = true;
  static constexpr int kBias = 9, kMaxCode = 18;
  /// The levels -7 1 9 and -9 -1 7, plus kBias; codes 3 and 7 do not occur.
  static constexpr uint8_t kTable[16] = {2, 10, 18, 9, 0, 8, 16, 9, 2, 10, 18, 9, 0, 8, 16, 9};
  static constexpr int kBesideCode = 4;
  static constexpr int kScaleBlock = 32, kScaleMask = 7;
  static constexpr float kFactor = 1.0f / 8;
  static constexpr bool kMins = false;
  using Scales = OddScales<IQ1_S>;

  static void decode(const Block& b, float* x) { decode_levels<IQ1_S>(b, x); }

  static constexpr const auto& kGrid = kIq1Grid;
  static constexpr Beside kBeside = Beside::kShiftOf32;
  using Fit = FitPoints<IQ1_S>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (int r = 0; r < kBlock / 32; ++r) {
      const uint8_t* codes = f.codes + 32 * r;
      int high = f.scales[r] << 12 | (codes[0] & kBesideCode ? 1 << 15 : 0);
      for (int j = 0; j < 4; ++j) {
        const int point = find_point<IQ1_S>(codes + 8 * j);
        b.points[4 * r + j] = static_cast<uint8_t>(point);
        high |= point >> 8 << (3 * j);
      }
      b.high[r] = static_cast<uint16_t>(high);
    }
  }

  static EI_INLINE Half half(const Block& b) { return b.d; }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    for (int r = 0; r < kBlock / 32; ++r) {
      const uint32_t high = b.high[r];
      const uint8_t all = high >> 15 ? 255 : 0;
      const Octets down = where_set(all, all, kBesideCode);
      const auto point = [&](int i) {
        return kIq1Grid[static_cast<int>(b.points[4 * r + i] | (high >> (3 * i) & 7) << 8)];
      };
      store_points(point(0), point(1), down, codes + 32 * r);
      store_points(point(2), point(3), down, codes + 32 * r + 16);
    }
  }
  static EI_INLINE void split_scales(const Block& b, uint8_t* scales) {
    for (int r = 0; r < kBlock / 32; ++r) scales[r] = static_cast<uint8_t>(b.high[r] >> 12);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return s.scale<V>(sub, lane);
  }
  /// What dword j of a step has besides its packed codes.
  template <class V>
  static EI_INLINE typename V::I32 shared_bits(const Scales& s, int step, int, int lane) {
    const auto nibbles = V::load_u8(&s.nibbles[step / 2][lane]);
    return V::where_bit(nibbles, 8 << 4 * (step % 2), 0x01010101 * kBesideCode);
  }
};
static_assert(sizeof(IQ1_S::Block) == 50);

}  // namespace edgeinfer
