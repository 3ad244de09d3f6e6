# The baseline every machine has: no flags beyond the compiler's default for the platform.
ei_isa(NAME scalar ARCH any RANK 0)
