// The Python extension edgeinfer._native: the list of its parts, one file a concept.
#include <nanobind/nanobind.h>

#include "bindings/bindings.h"

NB_MODULE(_native, m) {
  m.doc() = "edgeinfer's native kernels, engine and sampler.";
  edgeinfer::bind_quant(m);
  edgeinfer::bind_kernels(m);
  edgeinfer::bind_ceilings(m);
  edgeinfer::bind_device(m);
  edgeinfer::bind_engine(m);
  edgeinfer::bind_formats(m);
  edgeinfer::bind_sampler(m);
}
