// Packing GGUF rows into the layout of packed.h, and reading a row back.
#pragma once

#include <algorithm>
#include <cstring>

#include "quant/lane_simd.h"
#include "quant/packed.h"

namespace edgeinfer {

/// Bits 0..Bits-1 of every byte, from bit First on.
template <int Bits, int First = 0>
inline constexpr uint32_t kByteMask = ((1u << Bits) - 1) * 0x01010101u << First;

/// Adds one plane of Bits bits: `dwords` are the 8 code dwords of one row and step, of which the
/// bits from First on belong to the plane; `out` is the plane at the row's dword.
template <int Bits, int First>
EI_INLINE void pack_plane(const uint32_t* dwords, uint8_t* out) {
  for (int v = 0; v < Bits; ++v) {
    uint32_t word = 0;
    for (int i = 0; i < 8 / Bits; ++i) {
      word |= (dwords[v + Bits * i] >> First & kByteMask<Bits>) << (Bits * i);
    }
    std::memcpy(out + 64 * v, &word, 4);
  }
}

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

template <class Q>
struct Packer {
  using Block = typename Q::Block;

  static void pack_groups(const uint8_t* src, int64_t rows, int64_t cols, int64_t g0, int64_t g1,
                          uint8_t* dst) {
    const int64_t blocks = cols / Q::kBlock;
    const auto* matrix = reinterpret_cast<const Block*>(src);
    for (int64_t g = g0; g < g1; ++g) {
      uint8_t* out = dst + g * packed_group_bytes<Q>(cols);
      for (int64_t b = 0; b < blocks; ++b, out += Packed<Q>::kBlockBytes) {
        const Block* group[kGroupRows];
        for (int r = 0; r < kGroupRows; ++r) {
          const int64_t row = g * kGroupRows + r;
          group[r] = row < rows ? matrix + row * blocks + b : nullptr;
        }
        pack_block(group, out);
      }
    }
  }

  static void pack_block(const Block* const* rows, uint8_t* out) {
    using P = Packed<Q>;
    for (int r = 0; r < kGroupRows; ++r) {
      alignas(16) uint32_t dwords[Q::kBlock / 4] = {};
      if (rows[r]) Q::split(*rows[r], reinterpret_cast<uint8_t*>(dwords));
      for (int s = 0; s < P::kSteps; ++s) {
        uint8_t* step = out + s * P::kStepBytes + 4 * r;
        pack_plane<Q::kLowBits, 0>(dwords + 8 * s, step);
        pack_plane<Q::kHighBits, Q::kLowBits>(dwords + 8 * s, step + P::kLowBytes);
      }
    }
    Q::pack_scales(rows, *reinterpret_cast<typename Q::Scales*>(out + P::kCodeBytes));
  }

  static void unpack_row(const uint8_t* packed, int64_t cols, int64_t row, float* x) {
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
      const auto* codes = reinterpret_cast<const uint8_t*>(dwords);
      const auto& scales = P::scales(block);
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

  static int code_byte(uint8_t code) {
    if constexpr (TableType<Q>) return Q::kTable[code];
    return code;
  }
};

template <FloatType Q>
struct Packer<Q> {
  using Block = typename Q::Block;
  using Value = typename Q::Value;

  /// (16, cols) to (cols, 16) in tiles of 16 k, so that both sides use whole cache lines.
  static void pack_groups(const uint8_t* src, int64_t rows, int64_t cols, int64_t g0, int64_t g1,
                          uint8_t* dst) {
    const auto* matrix = reinterpret_cast<const Block*>(src);
    for (int64_t g = g0; g < g1; ++g) {
      auto* out = reinterpret_cast<Value*>(dst + g * packed_group_bytes<Q>(cols));
      const int count = static_cast<int>(std::min<int64_t>(kGroupRows, rows - g * kGroupRows));
      const Block* group = matrix + g * kGroupRows * cols;
      for (int64_t k0 = 0; k0 < cols; k0 += 16) {
        const int64_t k1 = std::min<int64_t>(k0 + 16, cols);
        for (int r = 0; r < kGroupRows; ++r) {
          for (int64_t k = k0; k < k1; ++k) {
            out[k * kGroupRows + r] = r < count ? group[r * cols + k].value : Value{};
          }
        }
      }
    }
  }

  static void unpack_row(const uint8_t* packed, int64_t cols, int64_t row, float* x) {
    const auto* group =
        reinterpret_cast<const Value*>(packed + row / kGroupRows * packed_group_bytes<Q>(cols));
    for (int64_t k = 0; k < cols; ++k) {
      Q::decode(Block{group[k * kGroupRows + row % kGroupRows]}, x + k);
    }
  }
};

}  // namespace edgeinfer
