#include "bindings/bindings.h"

namespace edgeinfer {

void bind_sampler(nanobind::module_&) {}

}  // namespace edgeinfer
