// The encoders without any instruction set's flags: the plain twin of what dispatch.h chooses.
#define EI_ISA plain
#include "quant/encode/encoder_set.inl"
