// QuantType: the number of a quant type, in the order of types.inc.
#pragma once

namespace edgeinfer {

enum QuantType : int {
#define EI_QUANT_TYPE(T, file) k##T,
#include "quant/types.inc"
#undef EI_QUANT_TYPE
  kQuantTypeCount
};

}  // namespace edgeinfer
