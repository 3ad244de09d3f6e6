// The packed layout: how every weight matrix lies in memory once it is loaded.
//
// Rows are taken 16 at a time (a group; the last one is padded with zero rows). Within a
// group a 32-bit dword holds four consecutive k of one row, so a vector of W dwords is
// W rows x 4 k, which is exactly the operand of VPDPBUSD, SDOT and (two zipped) SMMLA, and
// four consecutive activations are one broadcast. The bytes are the same for every ISA: a
// group is read as 1 x 16, 2 x 8 or 4 x 4 rows. A group is one linear stream over k, with
// the same number of bytes as the GGUF blocks it came from.
//
//   matrix  = [rows / 16] groups
//   group   = [cols / kBlock] packed blocks
//   block   = [kBlock / 32] steps of codes, then the scales of 16 rows (Q::Scales)
//   step    = low plane (kLowBits * 64 bytes), high plane (kHighBits * 64 bytes)
//
// A plane of b bits stores b vectors of 64 bytes per step of 32 k; the field i (bits b*i and
// up) of every byte of vector v belongs to dword v + b * i of the step. With b = 4 a mask
// yields dwords 0..3 and a shift yields 4..7. The code of a value is low | high << kLowBits.
// Table types (IQ4_NL, IQ4_XS, MXFP4) map the 4-bit code through Q::kTable to a byte.
//
//   weight(row, k) = scale(row, k / kScaleBlock) * (code - kBias) - min(row, k / kScaleBlock)
//
// F32, F16 and BF16 are packed as (cols, 16) per group, zero padded to whole groups.
#pragma once

#include <cstdint>

namespace edgeinfer {

inline constexpr int kGroupRows = 16;
inline constexpr int kStep = 32;  // k per step of codes
inline constexpr int kPlaneBytes = kGroupRows * kStep / 8;  // 64: one bit of 16 x 32 codes

}  // namespace edgeinfer
