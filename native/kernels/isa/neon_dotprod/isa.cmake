# From Cortex-A55 and A76 on (Raspberry Pi 5), Neoverse N1 and Apple M1.
ei_isa(NAME neon_dotprod ARCH aarch64 RANK 30 FEATURES neon dotprod FLAGS -march=armv8.2-a+dotprod)
