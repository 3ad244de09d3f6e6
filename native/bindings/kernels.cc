#include "bindings/bindings.h"

namespace edgeinfer {

void bind_kernels(nanobind::module_&) {}

}  // namespace edgeinfer
