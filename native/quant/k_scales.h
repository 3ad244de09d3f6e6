// What Q4_K and Q5_K share: 8 sub-blocks of 32, each with a six-bit scale and a six-bit minimum
// that two halves multiply, x = (d * scale) * q - (dmin * min).
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/nibbles.h"
#include "quant/six_bits.h"

namespace edgeinfer {

/// The 12 bytes of a GGUF block: scales and minimums 0..3 in the low six bits of bytes 0..3 and
/// 4..7; the low nibbles of scales (minimums) 4..7 are the low (high) nibbles of bytes 8..11 and
/// their upper two bits are the spare bits of bytes 0..3 (4..7).
EI_INLINE void split_k_scales(const uint8_t* bytes, uint8_t* scales, uint8_t* mins) {
  uint32_t a, b, c;  // four bytes each; a byte never reaches its neighbour
  std::memcpy(&a, bytes, 4);
  std::memcpy(&b, bytes + 4, 4);
  std::memcpy(&c, bytes + 8, 4);
  constexpr uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kTop = 0x30303030;
  const uint32_t out[4] = {a & kSix, (c & kFour) | (a >> 2 & kTop),  //
                           b & kSix, (c >> 4 & kFour) | (b >> 2 & kTop)};
  std::memcpy(scales, out, 8);
  std::memcpy(mins, out + 2, 8);
}

/// The inverse.
EI_INLINE void join_k_scales(const uint8_t* scales, const uint8_t* mins, uint8_t* bytes) {
  for (int i = 0; i < 4; ++i) {
    bytes[i] = static_cast<uint8_t>(scales[i] | (scales[i + 4] >> 4) << 6);
    bytes[i + 4] = static_cast<uint8_t>(mins[i] | (mins[i + 4] >> 4) << 6);
    bytes[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
  }
}

/// 256 nibbles: the low ones of 32 bytes come before their high ones.
EI_INLINE void split_k_nibbles(const uint8_t* q, uint8_t* codes) {
  for (int i = 0; i < 128; i += 16) split_nibbles(q + i, codes + i / 32 * 64 + i % 32, 32);
}

/// The inverse, of the low four bits of each code.
EI_INLINE void join_k_nibbles(const uint8_t* codes, uint8_t* q) {
  for (int i = 0; i < 128; i += 16) {
    const uint8_t* c = codes + i / 32 * 64 + i % 32;
    store_octets(q + i, (load_octets(c) & 15) | load_octets(c + 32) << 4);
  }
}

struct KScalesMins {
  Half d[kGroupRows];
  Half dmin[kGroupRows];
  SixBits<2> scales;
  SixBits<2> mins;

  template <class Block>
  static EI_INLINE void pack(const Block* const* rows, KScalesMins& out) {
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
