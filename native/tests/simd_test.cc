// Processor features and the choice of an instruction set.
#include <doctest/doctest.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/dispatch.h"

namespace edgeinfer {

TEST_CASE("every feature that implies another comes with it") {
  const CpuFeatures& f = cpu_features();
  CHECK((!f.avx2 || f.avx));
  CHECK((!f.avxvnni || f.avx2));
  CHECK((!f.avx512vnni || f.avx512f));
#if defined(__aarch64__)
  CHECK(f.neon);
  CHECK_FALSE(f.avx2);
#elif defined(__x86_64__)
  CHECK_FALSE(f.neon);
#endif
}

TEST_CASE("scalar is the last resort, and every usable set is complete") {
  const auto sets = usable_kernels();
  REQUIRE_FALSE(sets.empty());
  CHECK(std::string(sets.back()->name) == "scalar");
  for (const KernelSet* kernels : sets) {
    CAPTURE(kernels->name);
    for (const auto& matmul : kernels->matmul) CHECK((matmul != nullptr));
    CHECK(&find_kernels(kernels->name) == kernels);
  }
}

TEST_CASE("the best usable set is active, or the one EDGEINFER_ISA names") {
  const char* forced = std::getenv("EDGEINFER_ISA");
  const std::string expected = forced && *forced ? forced : usable_kernels().front()->name;
  CHECK(std::string(active_kernels().name) == expected);
}

TEST_CASE("an emulated processor has the sets that EDGEINFER_EXPECT_ISAS lists, best first") {
  const char* expected = std::getenv("EDGEINFER_EXPECT_ISAS");
  if (!expected) return;  // run_arm.sh sets it, for it knows the processor
  std::string names;
  for (const KernelSet* kernels : usable_kernels()) {
    if (!names.empty()) names += ' ';
    names += kernels->name;
  }
  CHECK(names == expected);
}

TEST_CASE("an unknown instruction set is refused with the usable ones") {
  CHECK_THROWS_WITH_AS(find_kernels("mmx"), doctest::Contains("scalar"), std::invalid_argument);
}

}  // namespace edgeinfer
