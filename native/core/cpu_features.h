// CpuFeatures: what the processor and the operating system let us execute.
//
// Read from CPUID and XGETBV on x86-64, from the auxiliary vector on ARM Linux and from sysctl
// on macOS. The names are those of the FEATURES in kernels/isa/*/isa.cmake.
#pragma once

#include <string>

namespace edgeinfer {

/// EI_CPU_FEATURE(name) for every feature; a feature the platform cannot have is false.
#define EI_CPU_FEATURES(EI_CPU_FEATURE) \
  EI_CPU_FEATURE(sse4_1)                \
  EI_CPU_FEATURE(sse4_2)                \
  EI_CPU_FEATURE(avx)                   \
  EI_CPU_FEATURE(avx2)                  \
  EI_CPU_FEATURE(fma)                   \
  EI_CPU_FEATURE(f16c)                  \
  EI_CPU_FEATURE(avxvnni)               \
  EI_CPU_FEATURE(avx512f)               \
  EI_CPU_FEATURE(avx512bw)              \
  EI_CPU_FEATURE(avx512vl)              \
  EI_CPU_FEATURE(avx512dq)              \
  EI_CPU_FEATURE(avx512vnni)            \
  EI_CPU_FEATURE(avx512bf16)            \
  EI_CPU_FEATURE(amxint8)               \
  EI_CPU_FEATURE(amxbf16)               \
  EI_CPU_FEATURE(neon)                  \
  EI_CPU_FEATURE(fp16)                  \
  EI_CPU_FEATURE(dotprod)               \
  EI_CPU_FEATURE(i8mm)                  \
  EI_CPU_FEATURE(bf16)                  \
  EI_CPU_FEATURE(sve)                   \
  EI_CPU_FEATURE(sve2)                  \
  EI_CPU_FEATURE(sme)

struct CpuFeatures {
#define EI_FIELD(name) bool name = false;
  EI_CPU_FEATURES(EI_FIELD)
#undef EI_FIELD
};

/// This machine's features; read once.
const CpuFeatures& cpu_features();

/// The processor's own name, for example "AMD EPYC 9B45"; empty if it has none to tell.
std::string cpu_brand();

}  // namespace edgeinfer
