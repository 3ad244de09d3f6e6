// Nibbles of a block of 32 in the order of the 32-value types: low ones first, then high ones.
#pragma once

#include <cstdint>

#include "quant/octets.h"

namespace edgeinfer {

/// codes[0..15] are the low nibbles of q[16], those `apart` further on the high ones.
EI_INLINE void split_nibbles(const uint8_t* q, uint8_t* codes, int apart = 16) {
  const Octets both = load_octets(q);
  store_octets(codes, both & 15);
  store_octets(codes + apart, both >> 4);
}

/// The inverse, of the low four bits of each code.
inline void join_nibbles(const uint8_t* codes, uint8_t* q) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
}

/// split_nibbles, with bit 4 of the 32 codes from a little-endian bit set of four bytes: each byte
/// of the set is repeated eight times, of which each looks at its own bit.
EI_INLINE void split_five_bits(const uint8_t* q, const uint8_t* high, uint8_t* codes) {
  using Words = uint64_t __attribute__((vector_size(16)));
  constexpr uint64_t kEach = 0x0101010101010101;
  constexpr Octets kBits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const Octets both = load_octets(q);
  const auto first = reinterpret_cast<Octets>(Words{high[0] * kEach, high[1] * kEach});
  const auto second = reinterpret_cast<Octets>(Words{high[2] * kEach, high[3] * kEach});
  store_octets(codes, (both & 15) | where_set(first, kBits, 16));
  store_octets(codes + 16, both >> 4 | where_set(second, kBits, 16));
}

/// Collects bit 4 of 32 codes.
inline void take_fifth_bits(const uint8_t* codes, uint8_t* high) {
  for (int i = 0; i < 4; ++i) high[i] = 0;
  for (int i = 0; i < 32; ++i) high[i / 8] |= static_cast<uint8_t>((codes[i] >> 4 & 1) << (i % 8));
}

}  // namespace edgeinfer
