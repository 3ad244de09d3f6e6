#include "bindings/bindings.h"

namespace edgeinfer {

void bind_engine(nanobind::module_&) {}

}  // namespace edgeinfer
