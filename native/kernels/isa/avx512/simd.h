// AVX-512 (F, BW, VL, DQ, VNNI): one vector is the 16 rows of a group. docs/adding/isa.md lists
// what every Simd has.
#pragma once

#include <immintrin.h>

#include "core/half.h"
#include "kernels/unroll.h"

namespace edgeinfer::avx512 {

struct Simd {
  static constexpr int kWidth = 16;
  static constexpr int kRowVectors = 2;  // 16 code registers, and as many for everything else
  static constexpr int kTokenTile = 6;
  static constexpr int kFewTokens = 8;  // accumulators beside 8 code registers
  using F32 = __m512;
  using I32 = __m512i;

  static EI_INLINE F32 set(float x) { return _mm512_set1_ps(x); }
  static EI_INLINE F32 load(const float* p) { return _mm512_loadu_ps(p); }
  static EI_INLINE F32 load(const Half* p) { return load_half(p); }
  static EI_INLINE F32 load(const BFloat16* p) {
    return as_f32(shift_left<16>(_mm512_cvtepu16_epi32(load_256(p))));
  }
  static EI_INLINE F32 load_half(const Half* p) { return _mm512_cvtph_ps(load_256(p)); }
  static EI_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a); }
  static EI_INLINE F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static EI_INLINE F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
  static EI_INLINE F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static EI_INLINE F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static EI_INLINE F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
  static EI_INLINE F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
  static EI_INLINE F32 abs(F32 a) { return _mm512_abs_ps(a); }
  static EI_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
  static EI_INLINE F32 fnma(F32 a, F32 b, F32 c) { return _mm512_fnmadd_ps(a, b, c); }
  /// VSCALEFPS and VADDPS run beside VPDPBUSD on Zen 5; VMULPS and FMA take its place.
  static EI_INLINE F32 mul_pow2(F32 a, F32, F32 log2) { return _mm512_scalef_ps(a, log2); }
  static EI_INLINE F32 fma_pow2(F32 a, F32, F32 log2, F32 c) {
    return add(c, _mm512_scalef_ps(a, log2));
  }
  static EI_INLINE float sum(F32 a) { return _mm512_reduce_add_ps(a); }
  static EI_INLINE float maximum(F32 a) { return _mm512_reduce_max_ps(a); }

  static EI_INLINE I32 set_i32(int32_t x) { return _mm512_set1_epi32(x); }
  /// GCC would read memory once for every use; load ports are what few tokens run out of first.
  static EI_INLINE I32 load_i32(const void* p) {
    I32 x = _mm512_loadu_si512(p);
    asm("" : "+v"(x));
    return x;
  }
  static EI_INLINE I32 load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(load_128(p)); }
  static EI_INLINE I32 load_s8(const int8_t* p) { return _mm512_cvtepi8_epi32(load_128(p)); }
  static EI_INLINE void load_columns(const uint8_t* rows, int64_t stride, I32* out) {
    const auto four = [=](int r) __attribute__((always_inline)) {  // rows r, r + 4, r + 8, r + 12
      I32 x = _mm512_castsi128_si512(load_128(rows + r * stride));
      x = _mm512_inserti32x4(x, load_128(rows + (r + 4) * stride), 1);
      x = _mm512_inserti32x4(x, load_128(rows + (r + 8) * stride), 2);
      return _mm512_inserti32x4(x, load_128(rows + (r + 12) * stride), 3);
    };
    const I32 a = four(0), b = four(1), c = four(2), d = four(3);
    const I32 ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
    const I32 cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab_low, cd_low);
    out[1] = _mm512_unpackhi_epi64(ab_low, cd_low);
    out[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
  }
  static EI_INLINE void store_i32(uint8_t* p, I32 a) { _mm512_storeu_si512(p, a); }
  static EI_INLINE void store_s8(int8_t* p, I32 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
  }
  static EI_INLINE I32 add(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
  static EI_INLINE I32 sub(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
  static EI_INLINE I32 bit_and(I32 a, I32 b) { return _mm512_and_si512(a, b); }
  static EI_INLINE I32 bit_or(I32 a, I32 b) { return _mm512_or_si512(a, b); }
  static EI_INLINE I32 where_bit(I32 a, int32_t bit, int32_t x) {
    return _mm512_maskz_mov_epi32(_mm512_test_epi32_mask(a, set_i32(bit)), set_i32(x));
  }
  template <int N>
  static EI_INLINE I32 shift_left(I32 a) {
    return _mm512_slli_epi32(a, N);
  }
  template <int N>
  static EI_INLINE I32 shift_right(I32 a) {
    return _mm512_srli_epi32(a, N);
  }
  static EI_INLINE F32 to_f32(I32 a) { return _mm512_cvtepi32_ps(a); }
  static EI_INLINE I32 to_i32(F32 a) { return _mm512_cvtps_epi32(a); }
  static EI_INLINE F32 as_f32(I32 a) { return _mm512_castsi512_ps(a); }
  static EI_INLINE int32_t sum(I32 a) { return _mm512_reduce_add_epi32(a); }

  static EI_INLINE I32 lookup(const uint8_t* table, I32 codes) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(table)), codes);
  }
  template <int kMaxCode>
  static constexpr int kOperandOffset = 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    return codes;
  }
  /// The intrinsic makes GCC 12 copy, and so spill, accumulators once about 20 are live.
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    if constexpr (N == 1) {  // nobody else needs the four activations in a register
      using Four = const int32_t __attribute__((may_alias));
      unroll<4>(EI_LAMBDA(j) {
        asm("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(acc[0])
            : "v"(w[0][first + j]), "m"(*reinterpret_cast<Four*>(q + 4 * j)));
      });
      return;
    }
    unroll<4>(EI_LAMBDA(j) {
      const I32 four = broadcast_four(q + 4 * j);
      unroll<N>(EI_LAMBDA(v) {
        asm("vpdpbusd %2, %1, %0" : "+v"(acc[v]) : "v"(w[v][first + j]), "v"(four));
      });
    });
  }
  static EI_INLINE void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
  }

 private:
  static EI_INLINE I32 broadcast_four(const int8_t* q) {
    int32_t x;
    __builtin_memcpy(&x, q, 4);
    return _mm512_set1_epi32(x);
  }
  static EI_INLINE __m128i load_128(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  static EI_INLINE __m256i load_256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
};

}  // namespace edgeinfer::avx512
