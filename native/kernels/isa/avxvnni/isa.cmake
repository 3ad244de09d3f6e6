ei_isa(NAME avxvnni ARCH x86_64 RANK 30 FEATURES avx2 fma f16c avxvnni
       FLAGS -mavx2 -mfma -mf16c -mavxvnni)
