// MXFP4: 32 four-bit floats (E2M1) that share a power of two (E8M0), as the OCP Microscaling
// formats specification 1.0 has it. The levels here are doubled and the scale is halved, so the
// levels are integers: x = 2^(e - 128) * level[q].
#pragma once

#include "quant/fits.h"
#include "quant/nibbles.h"
#include "quant/packed.h"

namespace edgeinfer {

struct MXFP4 {
  static constexpr const char* kName = "mxfp4";
  static constexpr int kGgmlId = 39;
  static constexpr int kBlock = 32;
  struct EI_PACKED Block {
    uint8_t e;
    uint8_t q[kBlock / 2];  // value i low, value i + 16 high
  };

  static constexpr int kLowBits = 4, kHighBits = 0;
  static constexpr int kBias = 12, kMaxCode = 24;
  /// The levels 0 1 2 3 4 6 8 12 and their negatives, plus kBias.
  static constexpr uint8_t kTable[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
  static constexpr uint8_t kCodeOfRank[15] = {15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = false;
  struct Scales {
    uint8_t e[kGroupRows];
  };

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = half_power(b.e);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(kTable[codes[i]] - kBias);
  }

  /// 2^(e - 128); e is 0..255, the two smallest are subnormal.
  static float half_power(int e) {
    return std::bit_cast<float>(e < 2 ? uint32_t{0x200000} << e
                                      : static_cast<uint32_t>(e - 1) << 23);
  }

  using Fit = FitPower<LevelGrid<Levels<15>::of(kTable, kBias)>>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.e = static_cast<uint8_t>(f.scales[0]);
    uint8_t codes[kBlock];
    for (int i = 0; i < kBlock; ++i) codes[i] = kCodeOfRank[f.codes[i]];
    join_nibbles(codes, b.q);
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) { split_nibbles(b.q, codes); }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    for (int r = 0; r < kGroupRows; ++r) out.e[r] = rows[r] ? rows[r]->e : uint8_t{0};
  }
  /// half_power without a branch, as the product of two normal powers, 2^(h - 64) and
  /// 2^(e - h - 64) with h = e / 2.
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int, int lane) {
    const auto e = V::load_u8(s.e + lane);
    const auto h = V::template shift_right<1>(e);
    const auto offset = V::set_i32(127 - 64);
    const auto a = V::as_f32(V::template shift_left<23>(V::add(h, offset)));
    const auto b = V::as_f32(V::template shift_left<23>(V::add(V::sub(e, h), offset)));
    return V::mul(a, b);
  }
};
static_assert(sizeof(MXFP4::Block) == 17);

}  // namespace edgeinfer
