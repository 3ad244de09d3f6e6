#!/bin/bash
# Builds the C++ tests for 64-bit ARM and runs them under QEMU on one core of each instruction
# set. QEMU tells the program that core's features and stops at instructions it does not have,
# so this proves dispatch and results; it says nothing about speed or memory order.
#
# Needs doctest-dev, g++-aarch64-linux-gnu and qemu-user-static; `make test-arm` installs them.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/arm

# doctest is one header for every machine; the rest of /usr/include is the host's.
mkdir -p $build/include
cp -r /usr/include/doctest $build/include/
[ -f $build/build.ninja ] ||
  cmake -S native -B $build -G Ninja --toolchain cmake/aarch64.cmake \
    -DEI_PYTHON=OFF -DEI_TESTS=ON -DCMAKE_EXE_LINKER_FLAGS=-static \
    -DCMAKE_CXX_FLAGS="-isystem $PWD/$build/include" >&2
cmake --build $build >&2

# run CORE ISAS [ARGUMENTS]: the instruction sets that are usable on that core, best first.
run() {
  echo "==> $1: $2${EDGEINFER_ISA:+, forced to $EDGEINFER_ISA}" >&2
  QEMU_CPU=$1 EDGEINFER_EXPECT_ISAS=$2 qemu-aarch64-static $build/ei_tests "${@:3}"
}
run cortex-a72 "neon scalar"  # Raspberry Pi 4
run cortex-a76 "neon_dotprod neon scalar"  # Raspberry Pi 5
run max "neon_i8mm neon_dotprod neon scalar"
for isa in neon_dotprod neon scalar; do
  EDGEINFER_ISA=$isa run max "neon_i8mm neon_dotprod neon scalar" \
    --test-case='the best usable set is active*' | tee >(cat >&2) | grep '1 passed' >/dev/null
done
