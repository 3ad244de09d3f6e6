// Conversions of the 16-bit float formats, exact and without branches on the ISA.
#pragma once

#include <bit>
#include <cstdint>

#define EI_INLINE inline __attribute__((always_inline))

namespace edgeinfer {

#if defined(__aarch64__)
using NativeHalf = __fp16;  // GCC 12 has no _Float16 in C++ on aarch64
#else
using NativeHalf = _Float16;
#endif

/// IEEE 754 binary16.
struct Half {
  uint16_t bits;
};
/// The upper half of an IEEE 754 binary32.
struct BFloat16 {
  uint16_t bits;
};

EI_INLINE float to_float(Half h) {
  return static_cast<float>(std::bit_cast<NativeHalf>(h.bits));
}
EI_INLINE Half to_half(float f) {
  return {std::bit_cast<uint16_t>(static_cast<NativeHalf>(f))};
}
EI_INLINE float to_float(BFloat16 b) { return std::bit_cast<float>(uint32_t{b.bits} << 16); }
/// Rounds to nearest even; NaN stays a (quiet) NaN.
EI_INLINE BFloat16 to_bfloat16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 64)};
  return {static_cast<uint16_t>((u + (0x7fffu + ((u >> 16) & 1u))) >> 16)};
}

}  // namespace edgeinfer
