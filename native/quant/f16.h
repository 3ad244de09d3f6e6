// F16: IEEE 754 binary16.
#pragma once

#include "quant/packed.h"

namespace edgeinfer {

struct F16 {
  static constexpr const char* kName = "f16";
  static constexpr int kGgmlId = 1;
  static constexpr int kBlock = 1;
  using Value = Half;
  struct EI_PACKED Block {
    Half value;
  };

  static void decode(const Block& b, float* x) { *x = to_float(b.value); }
  static EI_INLINE Block encode(float x) { return {to_half(x)}; }
};
static_assert(sizeof(F16::Block) == 2);

}  // namespace edgeinfer
