// Activations to int8 with one scale per 16 values, round to nearest even.

/// 16 values: q, and the half's scale and sums.
EI_INLINE void quantize_half(const float* x, ActBlock& out, int half) {
  Floats peak = V::set(0), poison = V::set(0);
  for (int i = 0; i < 16; i += kWidth) {
    const Floats v = V::load(x + i);
    peak = V::max(V::abs(v), peak);
    poison = V::fma(v, V::set(0), poison);  // NaN if a value is NaN or infinite: the scale too
  }
  const float amax = V::maximum(peak) + V::sum(poison);
  // Below about 2^-120 the inverse would overflow; such values are zeros.
  const bool zero = amax < 0x1p-120f;
  const float inverse = zero ? 0.0f : 127.0f / amax;
  const float scale = zero ? 0.0f : amax / 127.0f;
  Ints sum = V::set_i32(0);
  for (int i = 0; i < 16; i += kWidth) {
    // NaN becomes a limit: the order of max's operands matters.
    Floats scaled = V::mul(V::load(x + i), V::set(inverse));
    scaled = V::min(V::max(scaled, V::set(-127.0f)), V::set(127.0f));
    const Ints q = V::to_i32(scaled);
    sum = V::add(sum, q);
    V::store_s8(out.q + 16 * half + i, q);
  }
  out.scale[half] = scale;
  out.sum[half] = V::sum(sum);
  out.total[half] = scale * static_cast<float>(out.sum[half]);
}

void quantize(const float* x, int64_t stride, int64_t cols, int64_t tokens, int64_t t0, int64_t t1,
              ActBlock* out) {
  for (int64_t t = t0; t < t1; ++t) {
    const float* row = x + t * stride;
    for (int64_t b = 0; b < cols / 32; ++b) {
      ActBlock& block = out[b * tokens + t];
      quantize_half(row + 32 * b, block, 0);
      quantize_half(row + 32 * b + 16, block, 1);
      block.total_all = block.total[0] + block.total[1];
      block.reserved = 0;
    }
  }
}
