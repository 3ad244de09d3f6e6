// Q2_K: 256 two-bit codes in 16 sub-blocks of 16 with a four-bit scale and a four-bit minimum
// each, x = (d * scale) * q - (dmin * min).
#pragma once

#include "quant/fits.h"
#include "quant/octets.h"
#include "quant/packed.h"

namespace edgeinfer {

struct Q2_K {
  static constexpr const char* kName = "q2_k";
  static constexpr int kGgmlId = 10;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t scales[kBlock / 16];  // scale low, minimum high
    uint8_t q[kBlock / 4];        // byte 32 * c + i: values 128 * c + 32 * j + i, j = 0..3
    Half d, dmin;
  };

  static constexpr int kLowBits = 2, kHighBits = 0;
  static constexpr int kBias = 0, kMaxCode = 3;
  static constexpr int kScaleBlock = 16;
  static constexpr bool kMins = true;
  struct Scales {
    Half d[kGroupRows];
    Half dmin[kGroupRows];
    uint8_t scales[kBlock / 16][kGroupRows];  // as in the GGUF block
  };

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d), dmin = to_float(b.dmin);
    for (int s = 0; s < 16; ++s) {
      const float scale = d * (b.scales[s] & 15), min = dmin * (b.scales[s] >> 4);
      for (int i = 16 * s; i < 16 * s + 16; ++i) x[i] = scale * codes[i] - min;
    }
  }

  using Fit = FitScalesMins<kMaxCode, kScaleBlock, 15>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    b.dmin = f.dmin;
    for (int s = 0; s < 16; ++s) {
      b.scales[s] = static_cast<uint8_t>(f.scales[s] | f.mins[s] << 4);
    }
    join_low_bits(f.codes, b.q);
  }

  /// Two bits of each of 256 codes, in the order of `q`.
  static EI_INLINE void join_low_bits(const uint8_t* codes, uint8_t* q) {
    for (int i = 0; i < kBlock / 4; ++i) {
      const uint8_t* c = codes + i / 32 * 128 + i % 32;
      q[i] =
          static_cast<uint8_t>((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
  }

  /// The inverse.
  static EI_INLINE void split_low_bits(const uint8_t* q, uint8_t* codes) {
    for (int i = 0; i < kBlock / 4; i += 16) {
      const Octets four = load_octets(q + i);
      uint8_t* out = codes + i / 32 * 128 + i % 32;
      for (int j = 0; j < 4; ++j) store_octets(out + 32 * j, four >> (2 * j) & 3);
    }
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) { split_low_bits(b.q, codes); }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      out.dmin[r] = rows[r] ? rows[r]->dmin : Half{0};
      for (int s = 0; s < 16; ++s) out.scales[s][r] = rows[r] ? rows[r]->scales[s] : uint8_t{0};
    }
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    const auto code = V::bit_and(V::load_u8(&s.scales[sub][lane]), V::set_i32(15));
    return V::mul(V::load_half(s.d + lane), V::to_f32(code));
  }
  template <class V>
  static EI_INLINE typename V::F32 min(const Scales& s, int sub, int lane) {
    const auto code = V::template shift_right<4>(V::load_u8(&s.scales[sub][lane]));
    return V::mul(V::load_half(s.dmin + lane), V::to_f32(code));
  }
};
static_assert(sizeof(Q2_K::Block) == 84);

}  // namespace edgeinfer
