# One object library per folder of kernels/isa; the folder's isa.cmake calls ei_isa().
#
#   ei_isa(NAME avx2 ARCH x86_64 RANK 20 FEATURES avx2 fma f16c FLAGS -mavx2 -mfma -mf16c)
#
# FEATURES are fields of CpuFeatures (core/cpu_features.h); all must be true at run time.
# The unit includes only quant headers and its own simd.h, in the ISA's namespace.
# EI_ISAS builds fewer: under the sanitizers one unit takes minutes and 2 GB, and the scalar one
# runs all shared code.
set(EI_ISAS "" CACHE STRING "Instruction sets to build, for example scalar;avx2; empty is all")
set(EI_ISA_DECLARATIONS "")
set(EI_ISA_ROWS "")

function(ei_isa)
  cmake_parse_arguments(A "" "NAME;ARCH;RANK" "FEATURES;FLAGS" ${ARGN})
  string(REPLACE "AMD64" "x86_64" processor "${CMAKE_SYSTEM_PROCESSOR}")
  string(REPLACE "arm64" "aarch64" processor "${processor}")
  if(NOT A_ARCH STREQUAL "any" AND NOT processor STREQUAL A_ARCH)
    return()
  endif()
  if(EI_ISAS AND NOT A_NAME IN_LIST EI_ISAS)
    return()
  endif()
  set(unit ${CMAKE_BINARY_DIR}/generated/isa_${A_NAME}.cc)
  file(CONFIGURE OUTPUT ${unit} CONTENT
"#define EI_ISA @A_NAME@
#include \"kernels/kernel_set.h\"
#include \"kernels/isa/@A_NAME@/simd.h\"
#include \"kernels/kernel_set.inl\"
" @ONLY)
  set(encoders ${CMAKE_BINARY_DIR}/generated/encoders_${A_NAME}.cc)
  file(CONFIGURE OUTPUT ${encoders} CONTENT
"#define EI_ISA @A_NAME@
#include \"quant/encode/encoder_set.inl\"
" @ONLY)
  add_library(ei_isa_${A_NAME} OBJECT ${unit} ${encoders})
  target_compile_options(ei_isa_${A_NAME} PRIVATE ${A_FLAGS})
  if(EI_SANITIZE)  # checks of every register-sized local only multiply the compile time
    target_compile_options(ei_isa_${A_NAME} PRIVATE
      -g1 -fno-sanitize=null,alignment,object-size,return
      -fno-sanitize-address-use-after-scope --param=asan-stack=0)
  endif()
  target_include_directories(ei_isa_${A_NAME} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${EI_GENERATED})
  target_link_libraries(ei_isa_${A_NAME} PRIVATE ei_warnings)
  target_sources(ei_native PRIVATE $<TARGET_OBJECTS:ei_isa_${A_NAME}>)
  set(usable "true")
  foreach(feature ${A_FEATURES})
    string(APPEND usable " && f.${feature}")
  endforeach()
  set(EI_ISA_DECLARATIONS
      "${EI_ISA_DECLARATIONS}namespace edgeinfer::${A_NAME} { extern const KernelSet kKernels; extern const EncoderSet kEncoders; }\n"
      PARENT_SCOPE)
  set(EI_ISA_ROWS
      "${EI_ISA_ROWS}    {${A_RANK}, [](const CpuFeatures& f) { return (void)f, ${usable}; }, &${A_NAME}::kKernels, &${A_NAME}::kEncoders},\n"
      PARENT_SCOPE)
endfunction()

file(GLOB isa_files CONFIGURE_DEPENDS kernels/isa/*/isa.cmake)
foreach(isa_file ${isa_files})
  include(${isa_file})
endforeach()
file(CONFIGURE OUTPUT ${EI_GENERATED}/isa_list.inc
     CONTENT "@EI_ISA_DECLARATIONS@namespace edgeinfer {\ninline constexpr IsaRow kIsas[] = {\n@EI_ISA_ROWS@};\n}\n" @ONLY)
