// What Q4_K and Q5_K share: 8 sub-blocks of 32, each with a six-bit scale and a six-bit minimum
// that two halves multiply, x = (d * scale) * q - (dmin * min).
#pragma once

#include "quant/six_bits.h"

namespace edgeinfer {

/// The 12 bytes of a GGUF block: scales and minimums 0..3 in the low six bits of bytes 0..3 and
/// 4..7; the low nibbles of scales (minimums) 4..7 are the low (high) nibbles of bytes 8..11 and
/// their upper two bits are the spare bits of bytes 0..3 (4..7).
inline void split_k_scales(const uint8_t* bytes, uint8_t* scales, uint8_t* mins) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = bytes[i] & 63;
    mins[i] = bytes[i + 4] & 63;
    scales[i + 4] = static_cast<uint8_t>((bytes[i + 8] & 15) | (bytes[i] >> 6) << 4);
    mins[i + 4] = static_cast<uint8_t>((bytes[i + 8] >> 4) | (bytes[i + 4] >> 6) << 4);
  }
}

/// The inverse.
inline void join_k_scales(const uint8_t* scales, const uint8_t* mins, uint8_t* bytes) {
  for (int i = 0; i < 4; ++i) {
    bytes[i] = static_cast<uint8_t>(scales[i] | (scales[i + 4] >> 4) << 6);
    bytes[i + 4] = static_cast<uint8_t>(mins[i] | (mins[i + 4] >> 4) << 6);
    bytes[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
  }
}

struct KScalesMins {
  Half d[kGroupRows];
  Half dmin[kGroupRows];
  SixBits<2> scales;
  SixBits<2> mins;

  template <class Block>
  static void pack(const Block* const* rows, KScalesMins& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      uint8_t s[8] = {}, m[8] = {};
      if (rows[r]) split_k_scales(rows[r]->scales, s, m);
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      out.dmin[r] = rows[r] ? rows[r]->dmin : Half{0};
      out.scales.put(r, s);
      out.mins.put(r, m);
    }
  }
  template <class V>
  EI_INLINE typename V::F32 scale(int sub, int lane) const {
    return V::mul(V::load_half(d + lane), V::to_f32(scales.get<V>(sub, lane)));
  }
  template <class V>
  EI_INLINE typename V::F32 min(int sub, int lane) const {
    return V::mul(V::load_half(dmin + lane), V::to_f32(mins.get<V>(sub, lane)));
  }
};

}  // namespace edgeinfer
