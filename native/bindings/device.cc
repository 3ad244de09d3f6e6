#include "bindings/bindings.h"

namespace edgeinfer {

void bind_device(nanobind::module_&) {}

}  // namespace edgeinfer
