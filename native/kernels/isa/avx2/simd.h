// AVX2 with FMA and F16C: a group is two vectors of 8 rows. docs/adding/isa.md lists what every
// Simd has.
#pragma once

#include <immintrin.h>

#include "core/half.h"
#include "kernels/unroll.h"

namespace edgeinfer::avx2 {

struct Simd {
  static constexpr int kWidth = 8;
  static constexpr int kRowVectors = 1;  // 8 of the 16 registers hold codes
  static constexpr int kFewTokens = 1;   // beside the codes no room for more accumulators
  static constexpr int kTokenTile = 3;
  using F32 = __m256;
  using I32 = __m256i;

  static EI_INLINE F32 set(float x) { return _mm256_set1_ps(x); }
  static EI_INLINE F32 load(const float* p) { return _mm256_loadu_ps(p); }
  static EI_INLINE F32 load(const Half* p) { return load_half(p); }
  static EI_INLINE F32 load(const BFloat16* p) {
    return as_f32(shift_left<16>(_mm256_cvtepu16_epi32(load_128(p))));
  }
  static EI_INLINE F32 load_half(const Half* p) { return _mm256_cvtph_ps(load_128(p)); }
  static EI_INLINE void store(float* p, F32 a) { _mm256_storeu_ps(p, a); }
  static EI_INLINE F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
  static EI_INLINE F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
  static EI_INLINE F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
  static EI_INLINE F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
  static EI_INLINE F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
  static EI_INLINE F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
  static EI_INLINE F32 abs(F32 a) {
    return as_f32(bit_and(_mm256_castps_si256(a), set_i32(0x7fffffff)));
  }
  static EI_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
  static EI_INLINE F32 fnma(F32 a, F32 b, F32 c) { return _mm256_fnmadd_ps(a, b, c); }
  static EI_INLINE F32 mul_pow2(F32 a, F32 p, F32) { return mul(a, p); }
  static EI_INLINE F32 fma_pow2(F32 a, F32 p, F32, F32 c) { return fma(a, p, c); }
  static EI_INLINE float sum(F32 a) {
    const __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 y = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static EI_INLINE float maximum(F32 a) {
    const __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 y = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }

  static EI_INLINE I32 set_i32(int32_t x) { return _mm256_set1_epi32(x); }
  static EI_INLINE I32 load_i32(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static EI_INLINE I32 load_u8(const uint8_t* p) { return _mm256_cvtepu8_epi32(load_64(p)); }
  static EI_INLINE I32 load_s8(const int8_t* p) { return _mm256_cvtepi8_epi32(load_64(p)); }
  static EI_INLINE void load_columns(const uint8_t* rows, int64_t stride, I32* out) {
    const auto two = [=](int r) __attribute__((always_inline)) {  // rows r and r + 4
      const I32 low = _mm256_castsi128_si256(load_128(rows + r * stride));
      return _mm256_inserti128_si256(low, load_128(rows + (r + 4) * stride), 1);
    };
    const I32 a = two(0), b = two(1), c = two(2), d = two(3);
    const I32 ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
    const I32 cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab_low, cd_low);
    out[1] = _mm256_unpackhi_epi64(ab_low, cd_low);
    out[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
  }
  static EI_INLINE void store_i32(uint8_t* p, I32 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
  }
  static EI_INLINE void store_s8(int8_t* p, I32 a) {
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  static EI_INLINE I32 add(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
  static EI_INLINE I32 sub(I32 a, I32 b) { return _mm256_sub_epi32(a, b); }
  static EI_INLINE I32 bit_and(I32 a, I32 b) { return _mm256_and_si256(a, b); }
  static EI_INLINE I32 bit_or(I32 a, I32 b) { return _mm256_or_si256(a, b); }
  static EI_INLINE I32 where_bit(I32 a, int32_t bit, int32_t x) {
    const I32 bits = set_i32(bit);
    return bit_and(_mm256_cmpeq_epi32(bit_and(a, bits), bits), set_i32(x));
  }
  template <int N>
  static EI_INLINE I32 shift_left(I32 a) {
    return _mm256_slli_epi32(a, N);
  }
  template <int N>
  static EI_INLINE I32 shift_right(I32 a) {
    return _mm256_srli_epi32(a, N);
  }
  static EI_INLINE F32 to_f32(I32 a) { return _mm256_cvtepi32_ps(a); }
  static EI_INLINE I32 to_i32(F32 a) { return _mm256_cvtps_epi32(a); }
  static EI_INLINE F32 as_f32(I32 a) { return _mm256_castsi256_ps(a); }
  static EI_INLINE int32_t sum(I32 a) {
    const __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    const __m128i y = _mm_add_epi32(x, _mm_unpackhi_epi64(x, x));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 1)));
  }

  static EI_INLINE I32 lookup(const uint8_t* table, I32 codes) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_128(table)), codes);
  }
  /// VPMADDUBSW multiplies unsigned by signed bytes and saturates at 16 bits: bytes above 127
  /// are made signed and lend their sign to q.
  template <int kMaxCode>
  static constexpr int kOperandOffset = kMaxCode > 127 ? 128 : 0;
  template <int kMaxCode>
  static EI_INLINE I32 operand(I32 codes) {
    if constexpr (kMaxCode > 127) return _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    return codes;
  }
  /// As many products as kMaxCode allows are summed in 16 bits: 2 * kDwords * kMaxCode * 127.
  template <int kMaxCode, int N>
  static EI_INLINE void dot(I32* acc, const I32 (*w)[8], int first, const int8_t* q) {
    constexpr int kDwords = kMaxCode <= 31 ? 4 : kMaxCode <= 63 ? 2 : 1;
    unroll<N>(EI_LAMBDA(v) {
      unroll<4 / kDwords>(EI_LAMBDA(i) {
        const int j = kDwords * i;
        I32 s = products<kMaxCode>(w[v][first + j], broadcast_four(q + 4 * j));
        unroll<kDwords - 1>(EI_LAMBDA(d) {
          const int k = j + 1 + d;
          s = _mm256_add_epi16(s, products<kMaxCode>(w[v][first + k], broadcast_four(q + 4 * k)));
        });
        acc[v] = _mm256_add_epi32(acc[v], _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
      });
    });
  }
  static EI_INLINE void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
  }

 protected:
  static EI_INLINE I32 broadcast_four(const int8_t* q) {
    int32_t x;
    __builtin_memcpy(&x, q, 4);
    return _mm256_set1_epi32(x);
  }

 private:
  template <int kMaxCode>
  static EI_INLINE I32 products(I32 w, I32 q) {
    if constexpr (kMaxCode > 127) {
      return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    }
    return _mm256_maddubs_epi16(w, q);
  }
  static EI_INLINE __m128i load_64(const void* p) {
    return _mm_loadl_epi64(static_cast<const __m128i*>(p));
  }
  static EI_INLINE __m128i load_128(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
};

}  // namespace edgeinfer::avx2
