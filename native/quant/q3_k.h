// Q3_K: 256 three-bit codes with an offset of 4 in 16 sub-blocks of 16 with a six-bit scale
// each, offset by 32: x = (d * (scale - 32)) * (q - 4).
#pragma once

#include "quant/q2_k.h"
#include "quant/six_bits.h"

namespace edgeinfer {

struct Q3_K {
  static constexpr const char* kName = "q3_k";
  static constexpr int kGgmlId = 11;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t high[kBlock / 8];  // bit s of byte i is bit 2 of value 32 * s + i
    uint8_t q[kBlock / 4];     // byte 32 * c + i: values 128 * c + 32 * j + i, j = 0..3
    uint8_t scales[12];        // see split_scales
    Half d;
  };

  static constexpr int kLowBits = 2, kHighBits = 1;
  static constexpr int kBias = 4, kMaxCode = 7;
  static constexpr int kScaleBlock = 16;
  static constexpr bool kMins = false;
  struct Scales {
    Half d[kGroupRows];
    SixBits<4> scales;
  };

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock], scales[16];
    split(b, codes);
    split_scales(b.scales, scales);
    const float d = to_float(b.d);
    for (int s = 0; s < 16; ++s) {
      const float scale = d * static_cast<float>(scales[s] - 32);
      for (int i = 16 * s; i < 16 * s + 16; ++i)
        x[i] = scale * static_cast<float>(codes[i] - kBias);
    }
  }

  using Fit = FitScales<Integers<-kBias, kMaxCode - kBias>, kScaleBlock, -32, 31>;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    uint8_t scales[16];
    for (int s = 0; s < 16; ++s) scales[s] = static_cast<uint8_t>(f.scales[s] + 32);
    join_scales(scales, b.scales);
    Q2_K::join_low_bits(f.codes, b.q);
    take_high_bits(f.codes, 2, b.high);
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    Q2_K::split_low_bits(b.q, codes);
    add_high_bits(b.high, 4, codes);
  }

  /// Low nibbles of scales 0..7 and 8..15 are the nibbles of bytes 0..7; the upper two bits of
  /// scale 4 * j + i are bits 2 * j and up of byte 8 + i.
  static EI_INLINE void split_scales(const uint8_t* bytes, uint8_t* scales) {
    uint32_t low[2], top;  // four bytes each; a byte never reaches its neighbour
    std::memcpy(low, bytes, 8);
    std::memcpy(&top, bytes + 8, 4);
    constexpr uint32_t kFour = 0x0f0f0f0f, kTop = 0x30303030;
    const uint32_t out[4] = {
        (low[0] & kFour) | (top << 4 & kTop), (low[1] & kFour) | (top << 2 & kTop),
        (low[0] >> 4 & kFour) | (top & kTop), (low[1] >> 4 & kFour) | (top >> 2 & kTop)};
    std::memcpy(scales, out, 16);
  }
  static EI_INLINE void join_scales(const uint8_t* scales, uint8_t* bytes) {
    for (int i = 0; i < 12; ++i) bytes[i] = 0;
    for (int i = 0; i < 16; ++i) {
      bytes[i % 8] |= static_cast<uint8_t>((scales[i] & 15) << (4 * (i / 8)));
      bytes[8 + i % 4] |= static_cast<uint8_t>((scales[i] >> 4) << (2 * (i / 4)));
    }
  }

  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      uint8_t scales[16] = {};
      if (rows[r]) split_scales(rows[r]->scales, scales);
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      out.scales.put(r, scales);
    }
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int sub, int lane) {
    const auto code = V::sub(s.scales.template get<V>(sub, lane), V::set_i32(32));
    return V::mul(V::load_half(s.d + lane), V::to_f32(code));
  }
};
static_assert(sizeof(Q3_K::Block) == 110);

}  // namespace edgeinfer
