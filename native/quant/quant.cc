#include "quant/quant.h"

#include "quant/all.h"
#include "quant/encode/encoder_set.h"
#include "quant/pack.h"

namespace edgeinfer {
namespace plain {
extern const EncoderSet kEncoders;  // quant/encoders.cc
}
namespace {

template <class Q>
void decode(const uint8_t* data, int64_t count, float* x) {
  const auto* blocks = reinterpret_cast<const typename Q::Block*>(data);
  for (int64_t b = 0; b < count / Q::kBlock; ++b) Q::decode(blocks[b], x + b * Q::kBlock);
}

template <class Q>
void pack(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst) {
  pack_rows<Q, LaneSimd>(src, rows, cols, dst);
}

template <class Q>
void unpack(const uint8_t* packed, int64_t cols, int64_t row, float* x) {
  unpack_row<Q>(packed, cols, row, x);
}

template <class Q>
constexpr QuantInfo row() {
  return {.name = Q::kName,
          .ggml_id = Q::kGgmlId,
          .block = Q::kBlock,
          .block_bytes = static_cast<int>(sizeof(typename Q::Block)),
          .packed_bytes_per_block = Packed<Q>::kBlockBytes / kGroupRows,
          .is_float = FloatType<Q>,
          .decode = decode<Q>,
          .pack = pack<Q>,
          .unpack_row = unpack<Q>};
}

constexpr QuantInfo kTypes[kQuantTypeCount] = {
#define EI_QUANT_TYPE(T, file) row<T>(),
#include "quant/types.inc"
#undef EI_QUANT_TYPE
};

template <class Predicate>
QuantType find(Predicate matches) {
  for (int i = 0; i < kQuantTypeCount; ++i) {
    if (matches(kTypes[i])) return static_cast<QuantType>(i);
  }
  return kQuantTypeCount;
}

}  // namespace

const QuantInfo& quant_info(QuantType type) { return kTypes[type]; }

void QuantInfo::encode(const float* x, const float* importance, int64_t count,
                       uint8_t* data) const {
  plain::kEncoders.encode[this - kTypes](x, importance, 1, count, data);
}

QuantType find_quant_type(std::string_view name) {
  return find([=](const QuantInfo& info) { return name == info.name; });
}

QuantType find_quant_type(int ggml_id) {
  return find([=](const QuantInfo& info) { return ggml_id == info.ggml_id; });
}

}  // namespace edgeinfer
