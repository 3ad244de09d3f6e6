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

#if defined(__F16C__) || defined(__aarch64__)
EI_INLINE float to_float(Half h) { return static_cast<float>(std::bit_cast<NativeHalf>(h.bits)); }
EI_INLINE Half to_half(float f) { return {std::bit_cast<uint16_t>(static_cast<NativeHalf>(f))}; }
#else
// Without an instruction the compiler calls a function per value; these vectorise.
EI_INLINE float to_float(Half h) {
  // With the exponent in place the value is too small by 2^112, also where it is subnormal.
  const uint32_t magnitude = uint32_t{h.bits & 0x7fffu} << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  uint32_t u = std::bit_cast<uint32_t>(scaled);
  u |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN
  return std::bit_cast<float>(u | uint32_t{h.bits & 0x8000u} << 16);
}
EI_INLINE Half to_half(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), magnitude = u & 0x7fffffffu;
  // Adding 0.5 leaves units of 2^-24, the subnormal step; the rest rounds to nearest even.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  uint32_t h = magnitude < 0x38800000u ? subnormal : normal;
  h = magnitude >= 0x47800000u ? 0x7c00u : h;
  h = magnitude > 0x7f800000u ? nan : h;
  return {static_cast<uint16_t>(h | (u >> 16 & 0x8000u))};
}
#endif
EI_INLINE float to_float(BFloat16 b) { return std::bit_cast<float>(uint32_t{b.bits} << 16); }
/// Rounds to nearest even; NaN stays a (quiet) NaN.
EI_INLINE BFloat16 to_bfloat16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 64)};
  return {static_cast<uint16_t>((u + (0x7fffu + ((u >> 16) & 1u))) >> 16)};
}

}  // namespace edgeinfer
