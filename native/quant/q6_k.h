// Q6_K: 256 six-bit codes with an offset of 32 in 16 sub-blocks of 16 with a signed byte scale
// each, x = (d * scale) * (q - 32).
#pragma once

#include "quant/fits.h"
#include "quant/nibbles.h"
#include "quant/packed.h"

namespace edgeinfer {

struct Q6_K {
  static constexpr const char* kName = "q6_k";
  static constexpr int kGgmlId = 14;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t low[kBlock / 2];   // byte 64 * c + i: values 128 * c + i and 128 * c + 64 + i
    uint8_t high[kBlock / 4];  // byte 32 * c + i: values 128 * c + 32 * j + i, j = 0..3
    int8_t scales[kBlock / 16];
    Half d;
  };

  static constexpr int kLowBits = 4, kHighBits = 2;
  static constexpr int kBias = 32, kMaxCode = 63;
  static constexpr int kScaleBlock = 16;
  static constexpr bool kMins = false;
  struct Scales {
    Half d[kGroupRows];
    int8_t scales[kBlock / 16][kGroupRows];
  };

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d);
    for (int s = 0; s < 16; ++s) {
      const float scale = d * b.scales[s];
      for (int i = 16 * s; i < 16 * s + 16; ++i)
        x[i] = scale * static_cast<float>(codes[i] - kBias);
    }
  }

  using Fit = FitScales<Integers<-kBias, kMaxCode - kBias>, kScaleBlock, -128, 127>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    for (int s = 0; s < 16; ++s) b.scales[s] = static_cast<int8_t>(f.scales[s]);
    for (int i = 0; i < kBlock / 2; ++i) {
      const uint8_t* c = f.codes + i / 64 * 128 + i % 64;
      b.low[i] = static_cast<uint8_t>((c[0] & 15) | (c[64] & 15) << 4);
    }
    for (int i = 0; i < kBlock / 4; ++i) {
      const uint8_t* c = f.codes + i / 32 * 128 + i % 32;
      b.high[i] = static_cast<uint8_t>(c[0] >> 4 | (c[32] >> 4) << 2 | (c[64] >> 4) << 4 |
                                       (c[96] >> 4) << 6);
    }
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    for (int i = 0; i < kBlock / 2; i += 16) {
      split_nibbles(b.low + i, codes + i / 64 * 128 + i % 64, 64);
    }
    for (int i = 0; i < kBlock / 4; i += 16) {
      const Octets high = load_octets(b.high + i);
      for (int j = 0; j < 4; ++j) {
        uint8_t* out = codes + i / 32 * 128 + i % 32 + 32 * j;
        store_octets(out, load_octets(out) | (high >> (2 * j) & 3) << 4);
      }
    }
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      for (int s = 0; s < 16; ++s) out.scales[s][r] = rows[r] ? rows[r]->scales[s] : int8_t{0};
    }
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    return V::mul(V::load_half(s.d + lane), V::to_f32(V::load_s8(&s.scales[sub][lane])));
  }
};
static_assert(sizeof(Q6_K::Block) == 210);

}  // namespace edgeinfer
