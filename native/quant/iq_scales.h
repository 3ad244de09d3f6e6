// What the i-quants below 4 bits share: a half and odd multiples of it for sub-blocks, and signs
// beside the ranks of magnitudes.
//
//   x = d * (2 * scale + 1) * kFactor * level, kFactor a power of two
//
// Every product of these is exact in float32, so their order does not matter.
#pragma once

#include <bit>
#include <cstring>

#include "quant/octets.h"
#include "quant/packed.h"

namespace edgeinfer {

/// The scales of 16 rows. Of each nibble the bits in Q::kScaleMask are the scale; split_scales
/// gives whole nibbles.
template <class Q>
struct OddScales {
  static constexpr int kSubs = 256 / Q::kScaleBlock;
  Half d[kGroupRows];
  uint8_t nibbles[kSubs / 2][kGroupRows];  // of sub-block 2 * i low, of the next one high

  static EI_INLINE void pack(const typename Q::Block* const* rows, OddScales& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      uint8_t scales[kSubs] = {};
      if (rows[r]) Q::split_scales(*rows[r], scales);
      out.d[r] = rows[r] ? Q::half(*rows[r]) : Half{0};
      for (int i = 0; i < kSubs / 2; ++i) {
        out.nibbles[i][r] = static_cast<uint8_t>(scales[2 * i] | scales[2 * i + 1] << 4);
      }
    }
  }

  template <class V>
  EI_INLINE typename V::F32 scale(int sub, int lane) const {
    const auto pair = V::load_u8(&nibbles[sub / 2][lane]);
    const auto twice = sub % 2 ? V::template shift_right<3>(pair) : V::template shift_left<1>(pair);
    const auto odd = V::bit_or(V::bit_and(twice, V::set_i32(2 * Q::kScaleMask)), V::set_i32(1));
    return V::mul(V::mul(V::load_half(d + lane), V::set(Q::kFactor)), V::to_f32(odd));
  }
};

/// The eighth sign of a run is not stored: the number of minus signs is even.
EI_INLINE uint8_t with_eighth_sign(uint32_t seven) {
  seven &= 127;
  uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return static_cast<uint8_t>(seven | (parity & 1) << 7);
}

/// Pairs of nibbles, the low one first.
EI_INLINE void split_nibble_pairs(const uint8_t* bytes, int count, uint8_t* nibbles) {
  for (int i = 0; i < count; ++i) {
    nibbles[2 * i] = bytes[i] & 15;
    nibbles[2 * i + 1] = bytes[i] >> 4;
  }
}

EI_INLINE uint8_t join_nibble_pair(const int16_t* nibbles) {
  return static_cast<uint8_t>(nibbles[0] | nibbles[1] << 4);
}

/// The index of the point that the ranks in codes are.
template <class Q>
EI_INLINE int find_point(const uint8_t* codes) {
  auto point = Q::kGrid[0];
  std::memcpy(&point, codes, sizeof point);
  constexpr auto kEach = static_cast<decltype(point)>(0x0101010101010101);
  return Q::kGrid.find(point & static_cast<decltype(point)>(kEach * (Q::kBesideCode - 1)));
}

/// The signs of eight codes, or the shifts.
template <class Q>
EI_INLINE uint8_t bits_beside(const uint8_t* codes) {
  return bits_of_eight(codes, std::countr_zero(static_cast<unsigned>(Q::kBesideCode)));
}

/// The codes of 16 values: ranks of two points of eight, and `sign` where their signs are minus.
EI_INLINE void store_points(uint64_t first, uint64_t second, Octets signs, uint8_t* codes) {
  using Words = uint64_t __attribute__((vector_size(16)));
  store_octets(codes, reinterpret_cast<Octets>(Words{first, second}) | signs);
}

/// Two points of four as one of eight.
EI_INLINE uint64_t join_points(uint32_t first, uint32_t second) {
  return first | static_cast<uint64_t>(second) << 32;
}

/// Q::decode.
template <class Q>
void decode_levels(const typename Q::Block& b, float* x) {
  constexpr int kSubs = Q::kBlock / Q::kScaleBlock;
  uint8_t codes[Q::kBlock], scales[kSubs];
  Q::split(b, codes);
  Q::split_scales(b, scales);
  for (int s = 0; s < kSubs; ++s) {
    const auto odd = static_cast<float>(2 * (scales[s] & Q::kScaleMask) + 1);
    const float scale = to_float(Q::half(b)) * (odd * Q::kFactor);
    for (int i = s * Q::kScaleBlock; i < (s + 1) * Q::kScaleBlock; ++i) {
      x[i] = scale * static_cast<float>(Q::kTable[codes[i]] - Q::kBias);
    }
  }
}

}  // namespace edgeinfer
