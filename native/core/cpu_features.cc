#include "core/cpu_features.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#include <fstream>
#endif

namespace edgeinfer {
namespace {

#if defined(__x86_64__) || defined(__i386__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// All zeros where the processor has no such leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

/// The register states that the operating system saves; only valid with OSXSAVE.
uint64_t enabled_states() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool bit(uint32_t word, int i) { return word >> i & 1; }

/// Intel SDM volume 2, CPUID; volume 1, 13.3 (state components of XCR0).
CpuFeatures detect() {
  CpuFeatures f;
  const Registers basic = cpuid(1), extended = cpuid(7), more = cpuid(7, 1);
  const uint64_t states = bit(basic.ecx, 27) ? enabled_states() : 0;
  const auto saved = [states](uint64_t mask) { return (states & mask) == mask; };
  const bool ymm = saved(0x6);        // SSE, AVX
  const bool zmm = saved(0xe6);       // and opmask, upper halves, upper registers
  const bool tiles = saved(0x60000);  // tile configuration and data

  f.sse4_1 = bit(basic.ecx, 19);
  f.sse4_2 = bit(basic.ecx, 20);
  f.avx = ymm && bit(basic.ecx, 28);
  f.fma = f.avx && bit(basic.ecx, 12);
  f.f16c = f.avx && bit(basic.ecx, 29);
  f.avx2 = f.avx && bit(extended.ebx, 5);
  f.avxvnni = f.avx2 && bit(more.eax, 4);
  f.avx512f = zmm && bit(extended.ebx, 16);
  f.avx512dq = f.avx512f && bit(extended.ebx, 17);
  f.avx512bw = f.avx512f && bit(extended.ebx, 30);
  f.avx512vl = f.avx512f && bit(extended.ebx, 31);
  f.avx512vnni = f.avx512f && bit(extended.ecx, 11);
  f.avx512bf16 = f.avx512f && bit(more.eax, 5);
  f.amxbf16 = tiles && bit(extended.edx, 22);
  f.amxint8 = tiles && bit(extended.edx, 25);
  return f;
}

std::string brand() {
  if (cpuid(0x80000000).eax < 0x80000004) return {};
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002 + i);
    std::memcpy(text + 16 * i, &r, 16);
  }
  return text;
}

#elif defined(__APPLE__)

bool has(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

CpuFeatures detect() {
  CpuFeatures f;
  f.neon = has("hw.optional.neon") || has("hw.optional.AdvSIMD");
  f.fp16 = has("hw.optional.arm.FEAT_FP16");
  f.dotprod = has("hw.optional.arm.FEAT_DotProd");
  f.i8mm = has("hw.optional.arm.FEAT_I8MM");
  f.bf16 = has("hw.optional.arm.FEAT_BF16");
  f.sme = has("hw.optional.arm.FEAT_SME");
  return f;
}

std::string brand() {
  char text[256] = {};
  size_t size = sizeof text - 1;
  sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0);
  return text;
}

#elif defined(__aarch64__) && defined(__linux__)

/// Bits of arch/arm64/include/uapi/asm/hwcap.h; older system headers lack the newer ones.
CpuFeatures detect() {
  const unsigned long words[2] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
  const auto bit = [&words](int word, int i) { return (words[word] >> i & 1) != 0; };
  CpuFeatures f;
  f.neon = bit(0, 1);
  f.fp16 = bit(0, 10);
  f.dotprod = bit(0, 20);
  f.sve = bit(0, 22);
  f.sve2 = bit(1, 1);
  f.i8mm = bit(1, 13);
  f.bf16 = bit(1, 14);
  f.sme = bit(1, 23);
  return f;
}

/// The kernel knows ARM cores by number only; boards have a name in the device tree.
std::string brand() {
  std::ifstream file("/proc/device-tree/model");
  std::string text;
  std::getline(file, text, '\0');
  return text;
}

#else

CpuFeatures detect() { return {}; }
std::string brand() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string cpu_brand() {
  std::string text = brand();
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

}  // namespace edgeinfer
