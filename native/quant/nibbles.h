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
EI_INLINE void join_nibbles(const uint8_t* codes, uint8_t* q) {
  store_octets(q, (load_octets(codes) & 15) | load_octets(codes + 16) << 4);
}

/// split_nibbles, with bit 4 of the 32 codes from a little-endian bit set of four bytes.
EI_INLINE void split_five_bits(const uint8_t* q, const uint8_t* high, uint8_t* codes) {
  const Octets both = load_octets(q);
  store_octets(codes, (both & 15) | where_set(high[0], high[1], 16));
  store_octets(codes + 16, both >> 4 | where_set(high[2], high[3], 16));
}

/// Collects bit 4 of 32 codes.
EI_INLINE void take_fifth_bits(const uint8_t* codes, uint8_t* high) {
  for (int i = 0; i < 4; ++i) high[i] = bits_of_eight(codes + 8 * i, 4);
}

}  // namespace edgeinfer
