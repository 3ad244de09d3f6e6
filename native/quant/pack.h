// Packing GGUF rows into the layout of packed.h, and reading a row back.
//
// The same lines serve every ISA: V is a vector of rows, 1 of them (LaneSimd) or 4, 8, 16.
#pragma once

#include <cstring>

#include "quant/lane_simd.h"
#include "quant/packed.h"

namespace edgeinfer {

/// Bits 0..Bits-1 of every byte, from bit First on.
template <int Bits, int First = 0>
inline constexpr uint32_t kByteMask = ((1u << Bits) - 1) * 0x01010101u << First;

/// One vector of a plane of Bits bits: `dwords` are code dwords of V's rows, every Bits-th of a
/// step's 8, of which the bits from First on belong to the plane.
template <class V, int Bits, int First, int Field = 0>
EI_INLINE typename V::I32 join_fields(const typename V::I32* dwords) {
  const auto mask = V::set_i32(static_cast<int32_t>(kByteMask<Bits>));
  const auto bits = V::bit_and(V::template shift_right<First>(dwords[Bits * Field]), mask);
  const auto field = V::template shift_left<Bits * Field>(bits);
  if constexpr (Field + 1 == 8 / Bits) {
    return field;
  } else {
    return V::bit_or(field, join_fields<V, Bits, First, Field + 1>(dwords));
  }
}

/// Writes the rows' part of a plane.
template <class V, int Bits, int First>
EI_INLINE void pack_plane(const typename V::I32* dwords, uint8_t* out) {
  if constexpr (Bits > 0) {
    for (int v = 0; v < Bits; ++v) {
      V::store_i32(out + 64 * v, join_fields<V, Bits, First>(dwords + v));
    }
  }
}

/// Adds the fields of a plane to the 8 code dwords of one row and step.
template <int Bits, int First>
EI_INLINE void unpack_plane(const uint8_t* in, uint32_t* dwords) {
  for (int v = 0; v < Bits; ++v) {
    uint32_t word;
    std::memcpy(&word, in + 64 * v, 4);
    for (int i = 0; i < 8 / Bits; ++i) {
      dwords[v + Bits * i] |= (word >> (Bits * i) & kByteMask<Bits>) << First;
    }
  }
}

/// Packs one block of each of 16 rows; a null row is padding.
template <class Q, class V>
EI_INLINE void pack_block(const typename Q::Block* const* rows, uint8_t* out) {
  using P = Packed<Q>;
  alignas(64) uint8_t codes[kGroupRows][Q::kBlock];
  for (int r = 0; r < kGroupRows; ++r) {
    if (rows[r]) {
      Q::split(*rows[r], codes[r]);
    } else {
      std::memset(codes[r], 0, Q::kBlock);
    }
  }
  for (int s = 0; s < P::kSteps; ++s) {
    for (int lane = 0; lane < kGroupRows; lane += V::kWidth) {
      typename V::I32 dwords[8];
      V::load_columns(codes[lane] + s * kStep, Q::kBlock, dwords);
      V::load_columns(codes[lane] + s * kStep + 16, Q::kBlock, dwords + 4);
      uint8_t* step = out + s * P::kStepBytes + 4 * lane;
      pack_plane<V, Q::kLowBits, 0>(dwords, step);
      pack_plane<V, Q::kHighBits, Q::kLowBits>(dwords, step + P::kLowBytes);
    }
  }
  Q::pack_scales(rows, *reinterpret_cast<typename Q::Scales*>(out + P::kCodeBytes));
}

/// Packs a GGUF matrix, or some rows of one, into groups of 16, the last one padded.
template <class Q, class V>
EI_INLINE void pack_rows(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst) {
  const auto* matrix = reinterpret_cast<const typename Q::Block*>(src);
  const int64_t blocks = cols / Q::kBlock;
  for (int64_t first = 0; first < rows; first += kGroupRows) {
    for (int64_t b = 0; b < blocks; ++b, dst += Packed<Q>::kBlockBytes) {
      const typename Q::Block* group[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) {
        group[r] = first + r < rows ? matrix + (first + r) * blocks + b : nullptr;
      }
      pack_block<Q, V>(group, dst);
    }
  }
}

/// Turns the next 16 bytes of 16 rows, `stride` bytes apart, into columns.
template <FloatType Q, class V>
EI_INLINE void pack_tile(const uint8_t* src, int64_t stride, typename Q::Value* out) {
  alignas(64) uint32_t columns[4][kGroupRows];
  for (int lane = 0; lane < kGroupRows; lane += V::kWidth) {
    typename V::I32 dwords[4];
    V::load_columns(src + lane * stride, stride, dwords);
    for (int j = 0; j < 4; ++j) {
      V::store_i32(reinterpret_cast<uint8_t*>(&columns[j][lane]), dwords[j]);
    }
  }
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  if constexpr (sizeof(typename Q::Value) == 4) {
    std::memcpy(bytes, columns, sizeof columns);
  } else {
    static_assert(sizeof(typename Q::Value) == 2);
    for (int j = 0; j < 4; ++j) {  // a dword holds two values of k
      alignas(32) uint16_t even[kGroupRows], odd[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) {
        even[r] = static_cast<uint16_t>(columns[j][r]);
        odd[r] = static_cast<uint16_t>(columns[j][r] >> 16);
      }
      std::memcpy(bytes + 64 * j, even, 32);
      std::memcpy(bytes + 64 * j + 32, odd, 32);
    }
  }
}

/// (16, cols) to (cols, 16).
template <FloatType Q, class V>
EI_INLINE void pack_rows(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst) {
  using Value = typename Q::Value;
  constexpr int64_t kTile = 16 / sizeof(Value);
  const auto* matrix = reinterpret_cast<const typename Q::Block*>(src);
  for (int64_t first = 0; first < rows; first += kGroupRows) {
    auto* out = reinterpret_cast<Value*>(dst) + first * cols;
    const int64_t count = rows - first < kGroupRows ? rows - first : kGroupRows;
    int64_t k = 0;
    if (count == kGroupRows) {
      const uint8_t* group = src + first * cols * static_cast<int64_t>(sizeof(Value));
      for (; k + kTile <= cols; k += kTile) {
        pack_tile<Q, V>(group + k * sizeof(Value), cols * sizeof(Value), out + k * kGroupRows);
      }
    }
    for (; k < cols; ++k) {
      for (int r = 0; r < kGroupRows; ++r) {
        out[k * kGroupRows + r] = r < count ? matrix[(first + r) * cols + k].value : Value{};
      }
    }
  }
}

/// Reads one row of a packed matrix back, the same bits as Q::decode.
template <class Q>
void unpack_row(const uint8_t* packed, int64_t cols, int64_t row, float* x) {
  using P = Packed<Q>;
  const int lane = static_cast<int>(row % kGroupRows);
  const uint8_t* block = packed + row / kGroupRows * packed_group_bytes<Q>(cols);
  for (int64_t b = 0; b < cols / Q::kBlock; ++b, block += P::kBlockBytes, x += Q::kBlock) {
    uint32_t dwords[Q::kBlock / 4] = {};
    for (int s = 0; s < P::kSteps; ++s) {
      const uint8_t* step = block + s * P::kStepBytes + 4 * lane;
      unpack_plane<Q::kLowBits, 0>(step, dwords + 8 * s);
      unpack_plane<Q::kHighBits, Q::kLowBits>(step + P::kLowBytes, dwords + 8 * s);
    }
    const auto& scales = P::scales(block);
    if constexpr (SharedBitsType<Q>) {
      for (int i = 0; i < Q::kBlock / 4; ++i) {
        dwords[i] |=
            static_cast<uint32_t>(Q::template shared_bits<LaneSimd>(scales, i / 8, i % 8, lane));
      }
    }
    const auto* codes = reinterpret_cast<const uint8_t*>(dwords);
    const auto code_byte = [](uint8_t code) -> int {
      if constexpr (TableType<Q>) return Q::kTable[code];
      return code;
    };
    for (int sub = 0; sub < Q::kBlock / Q::kScaleBlock; ++sub) {
      const float scale = Q::template scale<LaneSimd>(scales, sub, lane);
      for (int i = sub * Q::kScaleBlock; i < (sub + 1) * Q::kScaleBlock; ++i) {
        x[i] = scale * static_cast<float>(code_byte(codes[i]) - Q::kBias);
      }
      if constexpr (Q::kMins) {
        const float min = Q::template min<LaneSimd>(scales, sub, lane);
        for (int i = sub * Q::kScaleBlock; i < (sub + 1) * Q::kScaleBlock; ++i) x[i] -= min;
      }
    }
  }
}

template <FloatType Q>
void unpack_row(const uint8_t* packed, int64_t cols, int64_t row, float* x) {
  using Value = typename Q::Value;
  const auto* group =
      reinterpret_cast<const Value*>(packed + row / kGroupRows * packed_group_bytes<Q>(cols));
  for (int64_t k = 0; k < cols; ++k) {
    Q::decode(typename Q::Block{group[k * kGroupRows + row % kGroupRows]}, x + k);
  }
}

}  // namespace edgeinfer
