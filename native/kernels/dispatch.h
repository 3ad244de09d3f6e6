// Which instruction set runs: the best usable one, or the one EDGEINFER_ISA names.
#pragma once

#include <string_view>
#include <vector>

#include "core/cpu_features.h"
#include "kernels/kernel_set.h"
#include "quant/encode/encoder_set.h"

namespace edgeinfer {

/// One instruction set that was compiled in. The list is generated from kernels/isa/*/isa.cmake.
struct IsaRow {
  int rank;  // of two usable ones the higher is faster
  bool (*usable)(const CpuFeatures&);
  const KernelSet* kernels;
  const EncoderSet* encoders;
};

/// The kernel sets this machine can run, best first.
std::vector<const KernelSet*> usable_kernels();

/// The best one, or the one that the environment variable EDGEINFER_ISA names. Decided once.
/// Throws std::invalid_argument if that is unknown or unusable here.
const KernelSet& active_kernels();

/// The encoders that belong to a kernel set.
const EncoderSet& encoders_of(const KernelSet& kernels);

/// The usable kernel set of that name. Throws std::invalid_argument, naming the usable ones.
const KernelSet& find_kernels(std::string_view name);

}  // namespace edgeinfer
