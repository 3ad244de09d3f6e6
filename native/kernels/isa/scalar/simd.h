// The portable baseline: vectors of four lanes in the compiler's own vector extension, which
// becomes SSE2, NEON or plain registers. docs/adding/isa.md lists what every Simd has.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "kernels/unroll.h"

namespace edgeinfer::scalar {

struct Simd {
  static constexpr int kWidth = 4;
  static constexpr int kRowVectors = 1;
  static constexpr int kFewTokens = 1;
  static constexpr int kTokenTile = 3;
  using F32 = float __attribute__((vector_size(16)));
  using I32 = int32_t __attribute__((vector_size(16)));
  using U32 = uint32_t __attribute__((vector_size(16)));
  using I16 = int16_t __attribute__((vector_size(16)));
  using U8 = uint8_t __attribute__((vector_size(16)));

  static EI_INLINE F32 set(float x) { return F32{x, x, x, x}; }
  static EI_INLINE F32 load(const float* p) { return load_as<F32>(p); }
  static EI_INLINE F32 load(const Half* p) { return load_half(p); }
  static EI_INLINE F32 load(const BFloat16* p) {
    return as_f32(shift_left<16>(I32{p[0].bits, p[1].bits, p[2].bits, p[3].bits}));
  }
  /// Without branches or library calls: the exponent is moved by a product, which also makes
  /// subnormals normal; infinities and NaN get the largest exponent.
  static EI_INLINE F32 load_half(const Half* p) {
    const I32 h = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
    const I32 magnitude = shift_left<13>(h & 0x7fff);
    const F32 scaled = as_f32(magnitude) * 0x1p112f;
    const I32 special = (magnitude >= 0x0f800000) & 0x7f800000;
    return as_f32(as_i32(scaled) | special | shift_left<16>(h & 0x8000));
  }
  static EI_INLINE void store(float* p, F32 a) { __builtin_memcpy(p, &a, sizeof a); }
  static EI_INLINE F32 add(F32 a, F32 b) { return a + b; }
  static EI_INLINE F32 sub(F32 a, F32 b) { return a - b; }
  static EI_INLINE F32 mul(F32 a, F32 b) { return a * b; }
  static EI_INLINE F32 div(F32 a, F32 b) { return a / b; }
  static EI_INLINE F32 min(F32 a, F32 b) { return a < b ? a : b; }
  static EI_INLINE F32 max(F32 a, F32 b) { return a > b ? a : b; }
  static EI_INLINE F32 abs(F32 a) { return as_f32(as_i32(a) & 0x7fffffff); }
  static EI_INLINE F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
  static EI_INLINE F32 fnma(F32 a, F32 b, F32 c) { return c - a * b; }
  static EI_INLINE F32 mul_pow2(F32 a, F32 p, F32) { return a * p; }
  static EI_INLINE F32 fma_pow2(F32 a, F32 p, F32, F32 c) { return a * p + c; }
  static EI_INLINE float sum(F32 a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  static EI_INLINE float maximum(F32 a) {
    const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
  }

  static EI_INLINE I32 set_i32(int32_t x) { return I32{x, x, x, x}; }
  static EI_INLINE I32 load_i32(const void* p) { return load_as<I32>(p); }
  static EI_INLINE I32 load_u8(const uint8_t* p) { return I32{p[0], p[1], p[2], p[3]}; }
  static EI_INLINE I32 load_s8(const int8_t* p) { return I32{p[0], p[1], p[2], p[3]}; }
  static EI_INLINE void load_columns(const uint8_t* rows, int64_t stride, I32* out) {
    const I32 a = load_i32(rows), b = load_i32(rows + stride);
    const I32 c = load_i32(rows + 2 * stride), d = load_i32(rows + 3 * stride);
    const I32 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const I32 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const I32 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const I32 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    out[0] = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    out[1] = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    out[2] = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    out[3] = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
  }
  static EI_INLINE void store_i32(uint8_t* p, I32 a) { __builtin_memcpy(p, &a, sizeof a); }
  static EI_INLINE void store_s8(int8_t* p, I32 a) {
    for (int i = 0; i < kWidth; ++i) p[i] = static_cast<int8_t>(a[i]);
  }
  static EI_INLINE I32 add(I32 a, I32 b) { return a + b; }
  static EI_INLINE I32 sub(I32 a, I32 b) { return a - b; }
  static EI_INLINE I32 bit_and(I32 a, I32 b) { return a & b; }
  static EI_INLINE I32 bit_or(I32 a, I32 b) { return a | b; }
  static EI_INLINE I32 where_bit(I32 a, int32_t bit, int32_t x) { return ((a & bit) == bit) & x; }
  template <int N>
  static EI_INLINE I32 shift_left(I32 a) {
    return reinterpret_cast<I32>(reinterpret_cast<U32>(a) << N);
  }
  template <int N>
  static EI_INLINE I32 shift_right(I32 a) {
    return reinterpret_cast<I32>(reinterpret_cast<U32>(a) >> N);
  }
  static EI_INLINE F32 to_f32(I32 a) { return __builtin_convertvector(a, F32); }
  /// Adding 1.5 * 2^23 leaves the integer, rounded to nearest even, in the low bits.
  static EI_INLINE I32 to_i32(F32 a) {
    constexpr float kMagic = 12582912.0f;
    const F32 shifted = a + kMagic;
    return reinterpret_cast<I32>(reinterpret_cast<U32>(shifted) - 0x4b400000u);
  }
  static EI_INLINE F32 as_f32(I32 a) { return reinterpret_cast<F32>(a); }
  static EI_INLINE int32_t sum(I32 a) { return a[0] + a[1] + a[2] + a[3]; }

  static EI_INLINE I32 lookup(const uint8_t* table, I32 codes) {
    const U8 c = reinterpret_cast<U8>(codes);
    U8 out = {};  // sixteen comparisons: a byte at a time through memory would stall each load
    unroll<16>(EI_LAMBDA(i) {
      const uint8_t index = i;
      out |= reinterpret_cast<U8>(c == index) & table[i];
    });
    return reinterpret_cast<I32>(out);
  }
  /// Bytes above 127 become signed, so that products with q fit 16 bits.
  template <int kMaxCode>
  static constexpr int kOperandOffset = kMaxCode > 127 ? 128 : 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    if constexpr (kMaxCode > 127) return codes ^ set_i32(static_cast<int32_t>(0x80808080));
    return codes;
  }
  /// A product of a code and q fits 16 bits, and so do the sums of as many as kMaxCode allows:
  /// 2 * kDwords of them for each half of the 32-bit lane.
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    constexpr int kDwords = kMaxCode <= 31 ? 4 : kMaxCode <= 63 ? 2 : 1;
    unroll<N>(EI_LAMBDA(v) {
      unroll<4 / kDwords>(EI_LAMBDA(i) {
        I16 s = {};
        unroll<kDwords>(EI_LAMBDA(d) {
          const int j = kDwords * i + d;
          s += products<kMaxCode>(w[v][first + j], broadcast_four(q + 4 * j));
        });
        const I32 pairs = reinterpret_cast<I32>(s);
        acc[v] += (shift_left<16>(pairs) >> 16) + (pairs >> 16);
      });
    });
  }
  static EI_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

 private:
  template <class T>
  static EI_INLINE T load_as(const void* p) {
    T a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
  }
  static EI_INLINE I32 as_i32(F32 a) { return reinterpret_cast<I32>(a); }
  static EI_INLINE I32 broadcast_four(const int8_t* q) {
    int32_t x;
    __builtin_memcpy(&x, q, 4);
    return set_i32(x);
  }
  /// Codes times q, bytes 0 + 1 and 2 + 3 as 16-bit pairs.
  template <int kMaxCode>
  static EI_INLINE I16 products(I32 w, I32 q) {
    if constexpr (kMaxCode > 127) return even(w) * even(q) + odd(w) * odd(q);
    // Not signed, so masks serve.
    const I32 high = shift_right<8>(w) & 0x00ff00ff;
    return reinterpret_cast<I16>(w & 0x00ff00ff) * even(q) + reinterpret_cast<I16>(high) * odd(q);
  }
  static EI_INLINE I16 even(I32 a) { return reinterpret_cast<I16>(shift_left<8>(a)) >> 8; }
  static EI_INLINE I16 odd(I32 a) { return reinterpret_cast<I16>(a) >> 8; }
};

}  // namespace edgeinfer::scalar
