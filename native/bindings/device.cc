// What the processor can do.
#include <nanobind/stl/string.h>

#include "bindings/bindings.h"
#include "core/cpu_features.h"

namespace nb = nanobind;

namespace edgeinfer {

void bind_device(nb::module_& m) {
  m.def(
      "cpu_features",
      [] {
        const CpuFeatures& f = cpu_features();
        nb::dict features;
#define EI_FIELD(name) features[#name] = f.name;
        EI_CPU_FEATURES(EI_FIELD)
#undef EI_FIELD
        return features;
      },
      nb::sig("def cpu_features() -> dict[str, bool]"),
      "Instruction set extensions that the processor has and the operating system saves.");
  m.def("cpu_brand", &cpu_brand, "The processor's own name, or an empty string.");
}

}  // namespace edgeinfer
