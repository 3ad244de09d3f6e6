# Every 64-bit ARM: Cortex-A53, A57 and A72 (Raspberry Pi 3 and 4).
ei_isa(NAME neon ARCH aarch64 RANK 20 FEATURES neon FLAGS -march=armv8-a)
