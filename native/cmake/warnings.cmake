# Warnings are errors in our code; EI_SANITIZE adds the sanitizers everywhere.
add_library(ei_warnings INTERFACE)
target_compile_options(ei_warnings INTERFACE -Wall -Wextra -Werror -Wshadow)
# Contraction would make results depend on the ISA's FMA; kernels ask for FMA by name.
add_compile_options(-ffp-contract=off)
if(EI_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1)
  add_link_options(-fsanitize=address,undefined)
endif()
