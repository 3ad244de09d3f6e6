// Quant types at run time: one table row of functions per type.
#pragma once

#include <cstdint>
#include <string_view>

#include "quant/quant_type.h"

namespace edgeinfer {

struct QuantInfo {
  const char* name;  // "q4_0"
  int ggml_id;       // the type number in a GGUF file
  int block;         // values a block
  int block_bytes;
  int packed_bytes_per_block;  // of one row, in the packed form; block_bytes of most types
  bool is_float;

  /// Bytes of `cols` values; cols is a multiple of block.
  int64_t row_bytes(int64_t cols) const { return cols / block * block_bytes; }
  /// Bytes of the packed matrix (see packed.h): `rows` padded to a multiple of 16.
  int64_t packed_bytes(int64_t rows, int64_t cols) const {
    return (rows + 15) / 16 * 16 * (cols / block * packed_bytes_per_block);
  }

  /// GGUF blocks of `count` values (a multiple of block) to float32.
  void (*decode)(const uint8_t* data, int64_t count, float* x);

  /// `count` values (a multiple of block) to GGUF blocks. importance (count,), or null, weighs
  /// the squared error that is minimised. The plain twin of EncoderSet::encode, which writes the
  /// same bytes faster.
  void encode(const float* x, const float* importance, int64_t count, uint8_t* data) const;

  /// Packs the GGUF matrix `src` (rows, cols) into dst, packed_bytes(rows, cols) long, a row at a
  /// time: the plain twin of KernelSet::pack, which packs the same bytes faster.
  void (*pack)(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst);

  /// Reads one row of a packed matrix back, the same bits as decode.
  void (*unpack_row)(const uint8_t* packed, int64_t cols, int64_t row, float* x);
};

const QuantInfo& quant_info(QuantType type);

/// The type of a name or of a GGUF type number; kQuantTypeCount if there is none.
QuantType find_quant_type(std::string_view name);
QuantType find_quant_type(int ggml_id);

}  // namespace edgeinfer
