// The encoders of one instruction set: included once per ISA with EI_ISA defined, and compiled
// with the ISA's flags. As in kernels/kernel_set.inl only the table is exported.
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "quant/encode/encoder_set.h"

#define EI_LAMBDA_INLINE __attribute__((always_inline))

namespace edgeinfer::EI_ISA {
namespace {

#include "quant/encode/vec.inl"

#include "quant/encode/batch.inl"

#include "quant/encode/scale.inl"

#include "quant/encode/scale_min.inl"

#include "quant/encode/blocks.inl"

#include "quant/encode/grid.inl"

#include "quant/encode/points.inl"

#include "quant/encode/ternary.inl"

/// Values that share a scale.
template <class Q>
constexpr int kSub =
    Q::kBlock == 256 && !std::is_same_v<typename Q::Fit, FitTernary> ? Q::kScaleBlock : Q::kBlock;

template <class Q, bool Weighted>
void encode_blocks(const float* x, const float* importance, int64_t rows, int64_t cols,
                   uint8_t* out) {
  constexpr int kPer = Q::kBlock / kSub<Q>, kBlocks = kLanes / kPer;
  auto* blocks = reinterpret_cast<typename Q::Block*>(out);
  const int64_t count = rows * cols / Q::kBlock;
  Batch<kSub<Q>, Weighted> batch;
  Fitted fitted[kBlocks];
  for (int64_t first = 0; first < count; first += kBlocks) {
    batch.template read<Q::kBlock>(x, importance, cols, first * kPer, count * kPer);
    fit(typename Q::Fit{}, batch, fitted);
    const int64_t left = count - first < kBlocks ? count - first : kBlocks;
    for (int64_t i = 0; i < left; ++i) Q::join(fitted[i], blocks[first + i]);
  }
}

template <class Q>
void encode(const float* x, const float* importance, int64_t rows, int64_t cols, uint8_t* out) {
  if constexpr (FloatType<Q>) {
    auto* values = reinterpret_cast<typename Q::Block*>(out);
    for (int64_t i = 0; i < rows * cols; ++i) values[i] = Q::encode(x[i]);
  } else if (importance && !std::is_same_v<typename Q::Fit, FitLargest>) {
    encode_blocks<Q, true>(x, importance, rows, cols, out);
  } else {
    encode_blocks<Q, false>(x, nullptr, rows, cols, out);
  }
}

#define EI_NAME_OF(x) EI_NAME_TEXT(x)
#define EI_NAME_TEXT(x) #x

}  // namespace

extern const EncoderSet kEncoders;
const EncoderSet kEncoders = {
    .name = EI_NAME_OF(EI_ISA),
    .encode =
        {
#define EI_QUANT_TYPE(T, file) encode<T>,
#include "quant/types.inc"
#undef EI_QUANT_TYPE
        },
};

}  // namespace edgeinfer::EI_ISA
