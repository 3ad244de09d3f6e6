// TQ1_0: 256 values -1, 0, 1 and one half scale, x = d * (q - 1). Five codes share a byte, as the
// first digits after the point of a fraction in base 3 that 256 multiplies: times a power of three
// (modulo 256) a digit comes first. Packed, a code has two bits.
#pragma once

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/octets.h"

namespace edgeinfer {

struct TQ1_0 {
  static constexpr const char* kName = "tq1_0";
  static constexpr int kGgmlId = 34;
  static constexpr int kBlock = 256;
  struct EI_PACKED Block {
    uint8_t q[48];    // digit n of byte i: value 32 * n + i; of byte 32 + i: 160 + 16 * n + i
    uint8_t last[4];  // digit n of byte i: value 240 + 4 * n + i, n = 0..3
    Half d;
  };

  static constexpr int kLowBits = 2, kHighBits = 0;
  static constexpr bool kRepacked = true;
  static constexpr int kBias = 1, kMaxCode = 3;
  static constexpr int kScaleBlock = 32;  // of each 32 the same
  static constexpr bool kMins = false;
  using Scales = HalfScales;

  static void decode(const Block& b, float* x) {
    uint8_t codes[kBlock];
    split(b, codes);
    const float d = to_float(b.d);
    for (int i = 0; i < kBlock; ++i) x[i] = d * static_cast<float>(codes[i] - kBias);
  }

  using Fit = FitTernary;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    for (int i = 0; i < 32; ++i) b.q[i] = join_digits<5>(f.codes + i, 32);
    for (int i = 0; i < 16; ++i) b.q[32 + i] = join_digits<5>(f.codes + 160 + i, 16);
    for (int i = 0; i < 4; ++i) b.last[i] = join_digits<4>(f.codes + 240 + i, 4);
    b.d = f.d;
  }

  /// The smallest fraction of 256 that begins with the digits, `stride` codes apart.
  template <int Count>
  static EI_INLINE uint8_t join_digits(const uint8_t* codes, int stride) {
    int number = 0;
    for (int n = 0; n < 5; ++n) number = 3 * number + (n < Count ? codes[n * stride] : 0);
    return static_cast<uint8_t>((number * 256 + 242) / 243);
  }
  /// The integer part of three times a fraction of 256.
  static EI_INLINE Octets first_digit(Octets x) {
    return (reinterpret_cast<Octets>(x >= 86) & 1) + (reinterpret_cast<Octets>(x >= 171) & 1);
  }
  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    Octets a = load_octets(b.q), c = load_octets(b.q + 16), e = load_octets(b.q + 32);
    for (int n = 0; n < 5; ++n, a *= 3, c *= 3, e *= 3) {
      store_octets(codes + 32 * n, first_digit(a));
      store_octets(codes + 32 * n + 16, first_digit(c));
      store_octets(codes + 160 + 16 * n, first_digit(e));
    }
    Octets last;  // four values, then three times them, and so on
    for (int i = 0; i < 16; ++i) last[i] = static_cast<uint8_t>(b.last[i % 4] * kPowers[i / 4]);
    store_octets(codes + 240, first_digit(last));
  }
  static constexpr uint8_t kPowers[4] = {1, 3, 9, 27};

  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int, int lane) {
    return s.scale<V>(lane);
  }
};
static_assert(sizeof(TQ1_0::Block) == 54);

}  // namespace edgeinfer
