// Every kernel of one instruction set: included once per ISA, after its simd.h, with EI_ISA
// defined, and compiled with the ISA's flags.
//
// All is in an unnamed namespace: a weak symbol of a unit with wide instructions could replace
// the baseline's twin at link time and crash older machines. Only kKernels is exported.
#include "kernels/unroll.h"
#include "quant/pack.h"

namespace edgeinfer::EI_ISA {
namespace {

using V = Simd;
using Floats = V::F32;
using Ints = V::I32;
constexpr int kWidth = V::kWidth;
constexpr int kParts = kGroupRows / kWidth;  // vectors of a group's rows
/// Decoding runs ahead of the hardware prefetcher, which stops at every 4 KB page.
constexpr int64_t kPrefetchBytes = 8192;

/// Writes count <= kWidth lanes of a vector.
EI_INLINE void store_rows(float* y, Floats x, int64_t count) {
  if (count >= kWidth) return V::store(y, x);
  alignas(64) float lanes[kWidth];
  V::store(lanes, x);
  for (int64_t i = 0; i < count; ++i) y[i] = lanes[i];
}

EI_INLINE float scalar_value(float x) { return x; }
EI_INLINE float scalar_value(Half x) { return to_float(x); }
EI_INLINE float scalar_value(BFloat16 x) { return to_float(x); }

#include "kernels/activation.inl"
#include "kernels/ceilings.inl"
#include "kernels/int8_step.inl"
#include "kernels/matmul_few.inl"
#include "kernels/matmul_float.inl"
#include "kernels/matmul_many.inl"
#include "kernels/norm.inl"
#include "kernels/quantize.inl"
#include "kernels/recurrent.inl"
#include "kernels/rope.inl"

#include "kernels/matmul_int8.inl"

#include "kernels/kv_rows.inl"

#include "kernels/attention.inl"

template <class Q>
void pack(const uint8_t* src, int64_t rows, int64_t cols, uint8_t* dst) {
  pack_rows<Q, V>(src, rows, cols, dst);
}

template <class Q>
constexpr auto matmul_of() {
  if constexpr (FloatType<Q>)
    return &matmul_float<Q>;
  else
    return &matmul_int8<Q>;
}

#define EI_NAME_OF(x) EI_NAME_TEXT(x)
#define EI_NAME_TEXT(x) #x

}  // namespace

extern const KernelSet kKernels;
const KernelSet kKernels = {
    .name = EI_NAME_OF(EI_ISA),
    .pack =
        {
#define EI_QUANT_TYPE(T, file) pack<T>,
#include "quant/types.inc"
#undef EI_QUANT_TYPE
        },
    .quantize = quantize,
    .matmul =
        {
#define EI_QUANT_TYPE(T, file) matmul_of<T>(),
#include "quant/types.inc"
#undef EI_QUANT_TYPE
        },
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .clamped_swiglu = clamped_swiglu,
    .gelu = gelu_all,
    .gelu_erf_mul = gelu_erf_mul,
    .gelu_erf = gelu_erf_all,
    .scale_and_cap = scale_and_cap,
    .sum_exp = sum_exp,
    .add_scaled = add_scaled,
    .multiply = multiply,
    .sigmoid_mul = sigmoid_mul,
    .delta_rule = delta_rule,
    .convolve = convolve,
    .store_key =
        {
#define EI_QUANT_TYPE(T, file) store_key_of<T>(),
#include "quant/types.inc"
#undef EI_QUANT_TYPE
        },
    .store_value =
        {
#define EI_QUANT_TYPE(T, file) store_value_of<T>(),
#include "quant/types.inc"
#undef EI_QUANT_TYPE
        },
    .attend = attend,
    .merge = merge,
    .hadamard = hadamard,
    .read_all = read_all,
    .dot_all = dot_all,
};

}  // namespace edgeinfer::EI_ISA
