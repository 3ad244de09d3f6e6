// Nibbles of a block of 32 in the order of the 32-value types: low ones first, then high ones.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgeinfer {

/// codes[0..15] are the low nibbles of q[16], codes[16..31] the high ones.
inline void split_nibbles(const uint8_t* q, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = q[i] & 15;
    codes[i + 16] = q[i] >> 4;
  }
}

/// The inverse, of the low four bits of each code.
inline void join_nibbles(const uint8_t* codes, uint8_t* q) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
}

/// Adds bit 4 of 32 codes from a little-endian bit set of four bytes, eight codes at a time: each
/// byte of a word keeps its own bit of the set, which an addition carries to the byte's top.
inline void add_fifth_bits(const uint8_t* high, uint8_t* codes) {
  for (int i = 0; i < 4; ++i) {
    uint64_t word;
    std::memcpy(&word, codes + 8 * i, 8);
    const uint64_t bits = high[i] * 0x0101010101010101u & 0x8040201008040201u;
    word |= ((bits + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u) >> 3;
    std::memcpy(codes + 8 * i, &word, 8);
  }
}

/// Collects bit 4 of 32 codes.
inline void take_fifth_bits(const uint8_t* codes, uint8_t* high) {
  for (int i = 0; i < 4; ++i) high[i] = 0;
  for (int i = 0; i < 32; ++i) high[i / 8] |= static_cast<uint8_t>((codes[i] >> 4 & 1) << (i % 8));
}

}  // namespace edgeinfer
