# From Cortex-A510 and A710 on, Neoverse V1 and N2, and Apple M2.
ei_isa(NAME neon_i8mm ARCH aarch64 RANK 40 FEATURES neon dotprod i8mm
       FLAGS -march=armv8.2-a+dotprod+i8mm)
