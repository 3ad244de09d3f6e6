// The scales of the types with one half (and perhaps a minimum) per 32 values.
#pragma once

#include "quant/packed.h"

namespace edgeinfer {

/// x = d * q.
struct HalfScales {
  Half d[kGroupRows];

  template <class Block>
  static EI_INLINE void pack(const Block* const* rows, HalfScales& out) {
    for (int r = 0; r < kGroupRows; ++r) out.d[r] = rows[r] ? rows[r]->d : Half{0};
  }
  template <class V>
  EI_INLINE typename V::F32 scale(int lane) const {
    return V::load_half(d + lane);
  }
};

/// x = d * q + m; the minimum is kept as -m, which is exact, also for signed zeros.
struct HalfScalesMins {
  Half d[kGroupRows];
  Half negative_m[kGroupRows];

  template <class Block>
  static EI_INLINE void pack(const Block* const* rows, HalfScalesMins& out) {
    for (int r = 0; r < kGroupRows; ++r) {
      out.d[r] = rows[r] ? rows[r]->d : Half{0};
      out.negative_m[r] = Half{static_cast<uint16_t>(rows[r] ? rows[r]->m.bits ^ 0x8000 : 0)};
    }
  }
  template <class V>
  EI_INLINE typename V::F32 scale(int lane) const {
    return V::load_half(d + lane);
  }
  template <class V>
  EI_INLINE typename V::F32 min(int lane) const {
    return V::load_half(negative_m + lane);
  }
};

}  // namespace edgeinfer
