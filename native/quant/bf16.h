// BF16: the upper half of an IEEE 754 binary32.
#pragma once

#include "quant/packed.h"

namespace edgeinfer {

struct BF16 {
  static constexpr const char* kName = "bf16";
  static constexpr int kGgmlId = 30;
  static constexpr int kBlock = 1;
  using Value = BFloat16;
  struct EI_PACKED Block {
    BFloat16 value;
  };

  static void decode(const Block& b, float* x) { *x = to_float(b.value); }
  static EI_INLINE Block encode(float x) { return {to_bfloat16(x)}; }
};
static_assert(sizeof(BF16::Block) == 2);

}  // namespace edgeinfer
