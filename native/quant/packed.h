// The packed layout: how every weight matrix lies in memory once it is loaded.
//
// Rows are taken 16 at a time (a group; the last one is padded with zero rows). Within a
// group a 32-bit dword holds four consecutive k of one row, so a vector of W dwords is
// W rows x 4 k, which is exactly the operand of VPDPBUSD, SDOT and (two zipped) SMMLA, and
// four consecutive activations are one broadcast. The bytes are the same for every ISA: a
// group is read as 1 x 16, 2 x 8 or 4 x 4 rows. A group is one linear stream over k, with
// the same number of bytes as the GGUF blocks it came from, unless the type is repacked: where
// GGUF stores points of a grid, or digits in base 3, a code has whole bits here, because a vector
// looks up 64 of these in the time of a few points.
//
//   matrix  = [rows / 16] groups
//   group   = [cols / kBlock] packed blocks
//   block   = [kBlock / 32] steps of codes, then the scales of 16 rows (Q::Scales)
//   step    = low plane (kLowBits * 64 bytes), high plane (kHighBits * 64 bytes)
//
// A plane of b bits stores b vectors of 64 bytes per step of 32 k; the field i (bits b*i and
// up) of every byte of vector v belongs to dword v + b * i of the step. With b = 4 a mask
// yields dwords 0..3 and a shift yields 4..7. The code of a value is low | high << kLowBits.
// Table types (MXFP4 and most i-quants) map a code of at most 4 bits through Q::kTable to a byte;
// of those IQ1_S and IQ1_M have, beside the scales, a bit that eight codes share.
//
//   weight(row, k) = scale(row, k / kScaleBlock) * (code - kBias) - min(row, k / kScaleBlock)
//
// F32, F16 and BF16 are packed as (cols, 16) per group, zero padded to whole groups.
//
// A quant type is a struct Q of constants and functions ("policy"):
//
//   kName, kGgmlId          the field's name in lower case; the type number of the GGUF format
//   kBlock, Block           values a GGUF block, and its bytes
//   decode(block, x)        x[kBlock] in float32, each operation rounded
//
// if it is a float type:
//
//   Value, encode(x)        what a packed element is; the block of a value
//
// else:
//
//   Fit, join(fitted, block)  what the encoder searches for (fits.h), and its bits in their places
//   kLowBits, kHighBits     bits of a code in the low and the high plane
//   kBias, kMaxCode         see the formula; the largest byte `code` can be (after kTable)
//   kScaleBlock             values one scale covers: 16 or 32
//   kMins                   whether min() exists
//   kTable[16]              table types only
//   kRepacked               true if the packed form has other bytes than the GGUF blocks
//   shared_bits<V>(scales, step, j, lane)  bits to add to dword j of a step, if codes share bits
//   split(block, codes)     codes[kBlock] in the order of k, before kTable
//   Scales, pack_scales(blocks, scales)  of one block of 16 rows; a null block is a zero row
//   scale<V>(scales, sub, lane), min<V>(scales, sub, lane)
//                           of sub-block `sub` for the V::kWidth rows from `lane`
//
// V is an ISA's vector type of 32-bit lanes; lane_simd.h, the width 1, lists what it must have.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "quant/lane_simd.h"

namespace edgeinfer {

inline constexpr int kGroupRows = 16;
inline constexpr int kStep = 32;                            // k per step of codes
inline constexpr int kPlaneBytes = kGroupRows * kStep / 8;  // 64: one bit of 16 x 32 codes

/// A GGUF block may begin at any byte of a file.
#define EI_PACKED __attribute__((packed))

template <class Q>
concept FloatType = requires { typename Q::Value; };
template <class Q>
concept TableType = requires { Q::kTable; };
template <class Q>
concept RepackedType = requires { requires Q::kRepacked; };
template <class Q>
concept SharedBitsType =
    requires(const typename Q::Scales& s) { Q::template shared_bits<LaneSimd>(s, 0, 0, 0); };

/// Sizes and offsets of the packed form of Q; `Packed<Q>::kBlockBytes` and so on.
template <class Q>
struct Packed {
  static constexpr int kSteps = Q::kBlock / kStep;
  static constexpr int kLowBytes = Q::kLowBits * kPlaneBytes;
  static constexpr int kStepBytes = (Q::kLowBits + Q::kHighBits) * kPlaneBytes;
  static constexpr int kCodeBytes = kSteps * kStepBytes;  // the scales begin here
  static constexpr int kBlockBytes = kCodeBytes + static_cast<int>(sizeof(typename Q::Scales));
  static_assert(RepackedType<Q> ||
                kBlockBytes == kGroupRows * static_cast<int>(sizeof(typename Q::Block)));

  static EI_INLINE const typename Q::Scales& scales(const uint8_t* block) {
    return *reinterpret_cast<const typename Q::Scales*>(block + kCodeBytes);
  }
};

template <FloatType Q>
struct Packed<Q> {
  static constexpr int kBlockBytes = kGroupRows * static_cast<int>(sizeof(typename Q::Value));
};

/// Bytes of one group of 16 rows.
template <class Q>
EI_INLINE constexpr int64_t packed_group_bytes(int64_t cols) {
  return cols / Q::kBlock * Packed<Q>::kBlockBytes;
}

}  // namespace edgeinfer
