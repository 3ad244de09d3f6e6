#include "bindings/bindings.h"

namespace edgeinfer {

void bind_quant(nanobind::module_&) {}

}  // namespace edgeinfer
