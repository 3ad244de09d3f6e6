// MXFP4: 32 four-bit floats (E2M1) that share a power of two (E8M0), as the OCP Microscaling
// formats specification 1.0 has it. The levels here are doubled and the scale is halved, so the
// levels are integers: x = 2^(e - 128) * level[q].
#pragma once

#include <algorithm>
#include <cmath>

#include "quant/nibbles.h"
#include "quant/packed.h"
#include "quant/search.h"

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

  /// Tries the power of two that brings the largest magnitude to 4..8 and its neighbours.
  static void encode(const float* x, const float* importance, Block& b) {
    static const Levels levels(kTable, kBias);
    constexpr int kMaxFinite = 252;  // 12 * 2^(253 - 128) is no float32
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) {
      if (std::isfinite(x[i])) largest = std::max(largest, std::fabs(x[i]));
    }
    const int centre = std::clamp((largest > 0 ? std::ilogb(largest) : -127) + 125, 0, kMaxFinite);
    // Searched near 1: powers of two change nothing but the exponent.
    float scaled[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      const float v = std::clamp(x[i], -largest, largest);
      scaled[i] = v == v ? std::ldexp(v, 128 - centre) : 0;
    }
    const Samples<kBlock> samples(scaled, importance);
    float least = INFINITY;
    int best = centre;
    for (int e = centre - 1; e <= centre + 1; ++e) {
      if (e < 0 || e > kMaxFinite) continue;
      const float error =
          scale_error(samples.x, samples.w, kBlock, std::ldexp(1.0f, e - centre), levels);
      if (error < least) least = error, best = e;
    }
    uint8_t codes[kBlock];
    write_codes(samples.x, kBlock, std::ldexp(1.0f, best - centre), levels, codes);
    b.e = static_cast<uint8_t>(best);
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
