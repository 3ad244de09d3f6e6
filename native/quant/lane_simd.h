// LaneSimd: a vector of one lane, and the list of operations a quant type asks of a vector type.
//
// A quant type expands its scales and packs its codes through these alone, so the same lines serve
// every ISA (whose Simd has them with W lanes) and the scalar code that reads single rows.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "core/half.h"

namespace edgeinfer {

struct LaneSimd {
  static constexpr int kWidth = 1;
  using F32 = float;
  using I32 = int32_t;

  static EI_INLINE F32 set(float x) { return x; }
  static EI_INLINE F32 load_half(const Half* p) { return to_float(*p); }
  static EI_INLINE I32 load_u8(const uint8_t* p) { return *p; }  // widened, zero extended
  static EI_INLINE I32 load_s8(const int8_t* p) { return *p; }   // widened, sign extended
  /// out[j] is dword j of the 16 bytes at `rows`; of W rows, `stride` bytes apart, for W lanes.
  static EI_INLINE void load_columns(const uint8_t* rows, int64_t, I32* out) {
    std::memcpy(out, rows, 16);
  }
  static EI_INLINE void store_i32(uint8_t* p, I32 x) { std::memcpy(p, &x, 4); }
  static EI_INLINE I32 set_i32(int32_t x) { return x; }
  static EI_INLINE I32 add(I32 a, I32 b) { return a + b; }
  static EI_INLINE I32 sub(I32 a, I32 b) { return a - b; }
  static EI_INLINE I32 bit_and(I32 a, I32 b) { return a & b; }
  static EI_INLINE I32 bit_or(I32 a, I32 b) { return a | b; }
  static EI_INLINE I32 where_bit(I32 a, int32_t bit, int32_t x) { return a & bit ? x : 0; }
  template <int N>
  static EI_INLINE I32 shift_left(I32 a) {
    return static_cast<I32>(static_cast<uint32_t>(a) << N);
  }
  template <int N>
  static EI_INLINE I32 shift_right(I32 a) {  // logical
    return static_cast<I32>(static_cast<uint32_t>(a) >> N);
  }
  static EI_INLINE F32 to_f32(I32 a) { return static_cast<float>(a); }    // converts
  static EI_INLINE F32 as_f32(I32 a) { return std::bit_cast<float>(a); }  // the same bits
  static EI_INLINE F32 mul(F32 a, F32 b) { return a * b; }
};

}  // namespace edgeinfer
