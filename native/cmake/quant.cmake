# quant/types.inc is the registry; quant/all.h, which includes every type's header, is made from it.
set(EI_GENERATED ${CMAKE_BINARY_DIR}/generated)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             ${CMAKE_CURRENT_SOURCE_DIR}/quant/types.inc)
file(STRINGS quant/types.inc type_lines REGEX "^EI_QUANT_TYPE")
set(EI_QUANT_INCLUDES "")
foreach(line ${type_lines})
  string(REGEX REPLACE "^EI_QUANT_TYPE\\([A-Za-z0-9_]+, ([a-z0-9_]+)\\).*" "\\1" header "${line}")
  string(APPEND EI_QUANT_INCLUDES "#include \"quant/${header}.h\"\n")
endforeach()
file(CONFIGURE OUTPUT ${EI_GENERATED}/quant/all.h
     CONTENT "// Generated from quant/types.inc.\n#pragma once\n@EI_QUANT_INCLUDES@" @ONLY)
