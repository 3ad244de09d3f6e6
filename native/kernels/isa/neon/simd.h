// NEON of the first 64-bit ARM cores: a group is four vectors of 4 rows. docs/adding/isa.md lists
// what every Simd has.
#pragma once

#include <arm_neon.h>

#include "core/half.h"
#include "kernels/unroll.h"

namespace edgeinfer::neon {

struct Simd {
  static constexpr int kWidth = 4;
  static constexpr int kRowVectors = 1;  // of two, GCC spills without SDOT and saves no instruction
  static constexpr int kFewTokens = 4;   // 16 accumulators
  static constexpr int kTokenTile = 6;   // 24 accumulators of 32 registers
  using F32 = float32x4_t;
  using I32 = int32x4_t;

  static EI_INLINE F32 set(float x) { return vdupq_n_f32(x); }
  static EI_INLINE F32 load(const float* p) { return vld1q_f32(p); }
  static EI_INLINE F32 load(const Half* p) { return load_half(p); }
  static EI_INLINE F32 load(const BFloat16* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
  }
  static EI_INLINE F32 load_half(const Half* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
  }
  static EI_INLINE void store(float* p, F32 a) { vst1q_f32(p, a); }
  static EI_INLINE F32 add(F32 a, F32 b) { return vaddq_f32(a, b); }
  static EI_INLINE F32 sub(F32 a, F32 b) { return vsubq_f32(a, b); }
  static EI_INLINE F32 mul(F32 a, F32 b) { return vmulq_f32(a, b); }
  static EI_INLINE F32 div(F32 a, F32 b) { return vdivq_f32(a, b); }
  // Not FMIN and FMAX: of a NaN and a number the kernels expect the second operand.
  static EI_INLINE F32 min(F32 a, F32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static EI_INLINE F32 max(F32 a, F32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static EI_INLINE F32 abs(F32 a) { return vabsq_f32(a); }
  static EI_INLINE F32 fma(F32 a, F32 b, F32 c) { return vfmaq_f32(c, a, b); }
  static EI_INLINE F32 fnma(F32 a, F32 b, F32 c) { return vfmsq_f32(c, a, b); }
  static EI_INLINE F32 mul_pow2(F32 a, F32 p, F32) { return mul(a, p); }
  static EI_INLINE F32 fma_pow2(F32 a, F32 p, F32, F32 c) { return fma(a, p, c); }
  static EI_INLINE float sum(F32 a) { return vaddvq_f32(a); }
  static EI_INLINE float maximum(F32 a) { return vmaxvq_f32(a); }

  static EI_INLINE I32 set_i32(int32_t x) { return vdupq_n_s32(x); }
  static EI_INLINE I32 load_i32(const void* p) {
    return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
  }
  static EI_INLINE I32 load_u8(const uint8_t* p) {
    const uint16x8_t words = vmovl_u8(vreinterpret_u8_s32(vget_low_s32(broadcast_four(p))));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
  }
  static EI_INLINE I32 load_s8(const int8_t* p) {
    const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vget_low_s32(broadcast_four(p))));
    return vmovl_s16(vget_low_s16(words));
  }
  static EI_INLINE void load_columns(const uint8_t* rows, int64_t stride, I32* out) {
    const I32 a = load_i32(rows), b = load_i32(rows + stride);
    const I32 c = load_i32(rows + 2 * stride), d = load_i32(rows + 3 * stride);
    const auto even = [](I32 x, I32 y) { return vreinterpretq_s64_s32(vtrn1q_s32(x, y)); };
    const auto odd = [](I32 x, I32 y) { return vreinterpretq_s64_s32(vtrn2q_s32(x, y)); };
    out[0] = vreinterpretq_s32_s64(vtrn1q_s64(even(a, b), even(c, d)));
    out[1] = vreinterpretq_s32_s64(vtrn1q_s64(odd(a, b), odd(c, d)));
    out[2] = vreinterpretq_s32_s64(vtrn2q_s64(even(a, b), even(c, d)));
    out[3] = vreinterpretq_s32_s64(vtrn2q_s64(odd(a, b), odd(c, d)));
  }
  static EI_INLINE void store_i32(uint8_t* p, I32 a) { vst1q_u8(p, vreinterpretq_u8_s32(a)); }
  static EI_INLINE void store_s8(int8_t* p, I32 a) {
    const int16x4_t words = vqmovn_s32(a);
    const int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    __builtin_memcpy(p, &four, 4);
  }
  static EI_INLINE I32 add(I32 a, I32 b) { return vaddq_s32(a, b); }
  static EI_INLINE I32 sub(I32 a, I32 b) { return vsubq_s32(a, b); }
  static EI_INLINE I32 bit_and(I32 a, I32 b) { return vandq_s32(a, b); }
  static EI_INLINE I32 bit_or(I32 a, I32 b) { return vorrq_s32(a, b); }
  static EI_INLINE I32 where_bit(I32 a, int32_t bit, int32_t x) {
    return bit_and(vreinterpretq_s32_u32(vtstq_s32(a, set_i32(bit))), set_i32(x));
  }
  template <int N>
  static EI_INLINE I32 shift_left(I32 a) {
    return vshlq_n_s32(a, N);
  }
  template <int N>
  static EI_INLINE I32 shift_right(I32 a) {
    return vreinterpretq_s32_u32(vreinterpretq_u32_s32(a) >> N);
  }
  static EI_INLINE F32 to_f32(I32 a) { return vcvtq_f32_s32(a); }
  static EI_INLINE I32 to_i32(F32 a) { return vcvtnq_s32_f32(a); }
  static EI_INLINE F32 as_f32(I32 a) { return vreinterpretq_f32_s32(a); }
  static EI_INLINE int32_t sum(I32 a) { return vaddvq_s32(a); }

  static EI_INLINE I32 lookup(const uint8_t* table, I32 codes) {
    return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s32(codes)));
  }
  /// NEON multiplies signed by signed bytes.
  template <int kMaxCode>
  static constexpr int kOperandOffset = kMaxCode > 127 ? 128 : 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    if constexpr (kMaxCode > 127) return veorq_s32(codes, vreinterpretq_s32_u8(vdupq_n_u8(128)));
    return codes;
  }
  /// As many products as kMaxCode allows are summed in 16 bits: 2 * kDwords * kMaxCode * 127.
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    constexpr int kDwords = kMaxCode <= 31 ? 4 : kMaxCode <= 63 ? 2 : 1;
    unroll<4 / kDwords>(EI_LAMBDA(i) {
      int16x8_t low[N], high[N];  // rows 0, 1 and rows 2, 3: four k each
      unroll<kDwords>(EI_LAMBDA(d) {
        const int j = kDwords * i + d;
        const int8x16_t four = vreinterpretq_s8_s32(broadcast_four(q + 4 * j));
        unroll<N>(EI_LAMBDA(v) {
          const int8x16_t codes = vreinterpretq_s8_s32(w[v][first + j]);
          if constexpr (d == 0) {
            low[v] = vmull_s8(vget_low_s8(codes), vget_low_s8(four));
            high[v] = vmull_high_s8(codes, four);
          } else {
            low[v] = vmlal_s8(low[v], vget_low_s8(codes), vget_low_s8(four));
            high[v] = vmlal_high_s8(high[v], codes, four);
          }
        });
      });
      unroll<N>(EI_LAMBDA(v) { acc[v] = vpadalq_s16(acc[v], vpaddq_s16(low[v], high[v])); });
    });
  }
  static EI_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

 private:
  static EI_INLINE I32 broadcast_four(const void* p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return vdupq_n_s32(x);
  }
};

}  // namespace edgeinfer::neon
