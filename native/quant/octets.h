// Sixteen bytes at a time, in the compiler's own vector extension: codes are split from blocks with
// these, so that they are written and read in the same pieces on every ISA (a load that finds its
// bytes in several younger stores waits for all of them: 1 instead of 20 GB/s of packing).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/half.h"

namespace edgeinfer {

using Octets = uint8_t __attribute__((vector_size(16)));

EI_INLINE Octets load_octets(const uint8_t* p) {
  Octets x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
EI_INLINE void store_octets(uint8_t* p, Octets x) { std::memcpy(p, &x, sizeof x); }

/// `value` in every byte whose bit, the one that `bits` has there, is set; else 0.
EI_INLINE Octets where_set(Octets x, Octets bits, uint8_t value) {
  return reinterpret_cast<Octets>((x & bits) == bits) & value;
}
EI_INLINE Octets where_set(Octets x, uint8_t bit, uint8_t value) {
  return where_set(x, Octets{} + bit, value);
}

/// `value` in the bytes whose bits in a set of sixteen, `low` and then `high`, are set; else 0:
/// each byte of the set is repeated eight times, of which each looks at its own bit.
EI_INLINE Octets where_set(uint8_t low, uint8_t high, uint8_t value) {
  using Words = uint64_t __attribute__((vector_size(16)));
  constexpr uint64_t kEach = 0x0101010101010101;
  constexpr Octets kBits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  return where_set(reinterpret_cast<Octets>(Words{low * kEach, high * kEach}), kBits, value);
}

/// One bit of eight bytes: a multiplication brings them into the last.
EI_INLINE uint8_t bits_of_eight(const uint8_t* p, int bit) {
  uint64_t eight;
  std::memcpy(&eight, p, 8);
  return static_cast<uint8_t>((eight >> bit & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

/// Adds `value` to the codes 32 * s + i, s = 0..7, whose bit s of high[i] is set.
EI_INLINE void add_high_bits(const uint8_t* high, uint8_t value, uint8_t* codes) {
  for (int s = 0; s < 8; ++s) {
    for (int i = 0; i < 32; i += 16) {
      uint8_t* out = codes + 32 * s + i;
      const Octets bit = where_set(load_octets(high + i), static_cast<uint8_t>(1 << s), value);
      store_octets(out, load_octets(out) | bit);
    }
  }
}

/// The inverse: collects bit `bit` of 256 codes.
EI_INLINE void take_high_bits(const uint8_t* codes, int bit, uint8_t* high) {
  for (int i = 0; i < 32; i += 16) {
    Octets all{};
    for (int s = 0; s < 8; ++s) all |= (load_octets(codes + 32 * s + i) >> bit & 1) << s;
    store_octets(high + i, all);
  }
}

}  // namespace edgeinfer
