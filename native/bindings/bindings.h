// Declares one bind function per concept.
#pragma once

#include <nanobind/nanobind.h>

namespace edgeinfer {

void bind_quant(nanobind::module_& m);
void bind_kernels(nanobind::module_& m);
void bind_ceilings(nanobind::module_& m);
void bind_device(nanobind::module_& m);
void bind_engine(nanobind::module_& m);
void bind_formats(nanobind::module_& m);
void bind_sampler(nanobind::module_& m);

}  // namespace edgeinfer
