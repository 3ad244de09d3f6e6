"""Kernels of a library for processors, written as vectors of 16 lanes that LLVM cuts to size."""
