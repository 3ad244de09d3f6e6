// F32: IEEE 754 binary32 as it is.
#pragma once

#include "quant/packed.h"

namespace edgeinfer {

struct F32 {
  static constexpr const char* kName = "f32";
  static constexpr int kGgmlId = 0;
  static constexpr int kBlock = 1;
  using Value = float;
  struct EI_PACKED Block {
    float value;
  };

  static void decode(const Block& b, float* x) { *x = b.value; }
  static EI_INLINE Block encode(float x) { return {x}; }
};
static_assert(sizeof(F32::Block) == 4);

}  // namespace edgeinfer
