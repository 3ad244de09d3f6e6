# GCC 12 warns about its own _mm512_undefined_ps (bug 105593).
ei_isa(NAME avx512 ARCH x86_64 RANK 40
       FEATURES avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512vnni
       FLAGS -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
             $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
             $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
