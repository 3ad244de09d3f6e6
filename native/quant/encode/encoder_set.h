// EncoderSet: the encoders of all quant types, as one instruction set runs them.
#pragma once

#include <cstdint>

#include "quant/all.h"
#include "quant/quant_type.h"

namespace edgeinfer {

struct EncoderSet {
  const char* name;

  /// x (rows, cols) to GGUF blocks, one row after the other. importance (cols,), or null, weighs
  /// the squared error that is minimised. cols is a multiple of the type's block. The bytes are
  /// the same for every ISA.
  void (*encode[kQuantTypeCount])(const float* x, const float* importance, int64_t rows,
                                  int64_t cols, uint8_t* out);
};

}  // namespace edgeinfer
