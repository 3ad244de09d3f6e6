// Six-bit scales of 16 rows: the K-quants and IQ4_XS keep them, four of a row in three bytes.
//
// The low six bits of the three bytes are the first three scales and the two spare bits of each
// make the fourth, so that three of four scales cost one mask.
#pragma once

#include <cstdint>
#include <cstring>

#include "quant/packed.h"

namespace edgeinfer {

/// Scales 0..4*N-1 of 16 rows.
template <int N>
struct SixBits {
  uint8_t bytes[N][3][kGroupRows];

  /// Stores the scales of one row; each is below 64.
  EI_INLINE void put(int row, const uint8_t* scales) {
    for (int i = 0; i < N; ++i) {
      uint32_t four;
      std::memcpy(&four, scales + 4 * i, 4);
      const uint32_t fourth = four >> 24;
      const uint32_t three = four | (fourth & 3) << 6 | (fourth & 12) << 12 | (fourth & 48) << 18;
      bytes[i][0][row] = static_cast<uint8_t>(three);
      bytes[i][1][row] = static_cast<uint8_t>(three >> 8);
      bytes[i][2][row] = static_cast<uint8_t>(three >> 16);
    }
  }

  /// Scale `index` of the rows from `lane`, 0..63.
  template <class V>
  EI_INLINE typename V::I32 get(int index, int lane) const {
    const auto& b = bytes[index / 4];
    if (index % 4 < 3) return V::bit_and(V::load_u8(&b[index % 4][lane]), V::set_i32(63));
    const auto low = V::template shift_right<6>(V::load_u8(&b[0][lane]));
    const auto middle = V::template shift_right<6>(V::load_u8(&b[1][lane]));
    const auto high = V::template shift_right<6>(V::load_u8(&b[2][lane]));
    return V::bit_or(low,
                     V::bit_or(V::template shift_left<2>(middle), V::template shift_left<4>(high)));
  }
};

}  // namespace edgeinfer
