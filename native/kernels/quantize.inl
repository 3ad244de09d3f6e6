// Activations to int8, 32 at a time (see ActBlock), round to nearest even.

/// A half's scale is at least the other's divided by this power of two.
constexpr int32_t kMostHalvings = 12;

EI_INLINE int32_t bits_of(float x) {
  int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
EI_INLINE float power_of_two(int32_t exponent) {
  const int32_t bits = (127 + exponent) << 23;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

EI_INLINE void quantize_block(const float* x, ActBlock& out) {
  float amax[2];
  Floats poison = V::set(0);
  for (int half = 0; half < 2; ++half) {
    Floats peak = V::set(0);
    for (int i = 16 * half; i < 16 * half + 16; i += kWidth) {
      const Floats v = V::load(x + i);
      peak = V::max(V::abs(v), peak);
      poison = V::fma(v, V::set(0), poison);  // NaN if a value is NaN or infinite: the scale too
    }
    amax[half] = V::maximum(peak);
  }
  const float largest = (amax[0] > amax[1] ? amax[0] : amax[1]) + V::sum(poison);
  // Below about 2^-120 the inverse would overflow, a halved scale much earlier lose bits; such
  // values are zeros.
  const bool zero = largest < 0x1p-100f;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  const float scale = zero ? 0.0f : largest / 127.0f;
  int32_t halvings[2];
  for (int half = 0; half < 2; ++half) {
    // The bits of positive floats are ordered like the floats, so this is the number of times
    // that `largest` can be halved without falling below the half's own largest.
    const int32_t n = (bits_of(largest) - bits_of(amax[half])) >> 23;
    halvings[half] = n < 0 ? 0 : n > kMostHalvings ? kMostHalvings : n;
    const float half_scale = scale * power_of_two(-halvings[half]);
    const Floats half_inverse = V::set(inverse * power_of_two(halvings[half]));
    Ints sum = V::set_i32(0);
    for (int i = 16 * half; i < 16 * half + 16; i += kWidth) {
      // NaN becomes a limit: the order of max's operands matters.
      Floats scaled = V::mul(V::load(x + i), half_inverse);
      scaled = V::min(V::max(scaled, V::set(-127.0f)), V::set(127.0f));
      const Ints q = V::to_i32(scaled);
      sum = V::add(sum, q);
      V::store_s8(out.q + i, q);
    }
    const int32_t total = V::sum(sum);
    out.start[half] = -ActBlock::kLiftedBias * total;
    out.total[half] = half_scale * static_cast<float>(total);
  }
  out.scale = scale * power_of_two(-halvings[0]);
  out.ratio = power_of_two(halvings[0] - halvings[1]);
  out.exponent = static_cast<float>(halvings[0] - halvings[1]);
  out.total_all = out.total[0] + out.total[1];
}

void quantize(const float* x, int64_t stride, int64_t cols, int64_t tokens, int64_t t0, int64_t t1,
              ActBlock* out) {
  for (int64_t t = t0; t < t1; ++t) {
    const float* row = x + t * stride;
    for (int64_t b = 0; b < cols / 32; ++b) quantize_block(row + 32 * b, out[b * tokens + t]);
  }
}
