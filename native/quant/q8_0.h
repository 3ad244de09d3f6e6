// Q8_0: 32 signed bytes and one half scale, x = d * q.
#pragma once

#include <cstring>

#include "quant/fits.h"
#include "quant/half_scales.h"
#include "quant/octets.h"

namespace edgeinfer {

struct Q8_0 {
  static constexpr const char* kName = "q8_0";
  static constexpr int kGgmlId = 8;
  static constexpr int kBlock = 32;
  struct EI_PACKED Block {
    Half d;
    int8_t q[kBlock];
  };

  static void decode(const Block& b, float* x) {
    const float d = to_float(b.d);
    for (int i = 0; i < kBlock; ++i) x[i] = static_cast<float>(b.q[i]) * d;
  }

  static constexpr int kLowBits = 8, kHighBits = 0;
  static constexpr int kBias = 128, kMaxCode = 255;
  static constexpr int kScaleBlock = 32;
  static constexpr bool kMins = false;
  using Scales = HalfScales;

  using Fit = FitLargest;

  static EI_INLINE void join(const Fitted& f, Block& b) {
    b.d = f.d;
    std::memcpy(b.q, f.codes, kBlock);
  }

  static EI_INLINE void split(const Block& b, uint8_t* codes) {
    const auto* q = reinterpret_cast<const uint8_t*>(b.q);
    for (int i = 0; i < kBlock; i += 16) store_octets(codes + i, load_octets(q + i) ^ 0x80);
  }
  static EI_INLINE void pack_scales(const Block* const* rows, Scales& out) {
    Scales::pack(rows, out);
  }
  template <class V>
  static EI_INLINE typename V::F32 scale(const Scales& s, int, int lane) {
    return s.scale<V>(lane);
  }
};
static_assert(sizeof(Q8_0::Block) == 34);

}  // namespace edgeinfer
