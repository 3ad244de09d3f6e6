// exp, and the sums and gated activations made of it.

/// e^x, relative error below 2e-7 in [-87, 88]; 0 below about -87.7, e^88 above 88.
///
/// x = n * ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite 1980) and a
/// polynomial of degree 6 for e^r (the coefficients are Taylor's, the error 2e-8 at the ends).
EI_INLINE Floats exp(Floats x) {
  x = V::min(V::set(88.0f), V::max(V::set(-88.0f), x));  // in this order NaN stays NaN
  const Ints n = V::to_i32(V::mul(x, V::set(1.44269504f)));
  const Floats f = V::to_f32(n);
  Floats r = V::fnma(f, V::set(0.693359375f), x);
  r = V::fnma(f, V::set(-2.12194440e-4f), r);
  Floats p = V::set(1.0f / 5040);
  p = V::fma(p, r, V::set(1.0f / 720));
  p = V::fma(p, r, V::set(1.0f / 120));
  p = V::fma(p, r, V::set(1.0f / 24));
  p = V::fma(p, r, V::set(1.0f / 6));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  // 2^n by its exponent bits; n = -127 gives 0.
  return V::mul(p, V::as_f32(V::shift_left<23>(V::add(n, V::set_i32(127)))));
}

/// x * sigmoid(z) for every lane.
EI_INLINE Floats gated(Floats x, Floats z) {
  return V::div(x, V::add(V::set(1), exp(V::sub(V::set(0), z))));
}
EI_INLINE Floats silu(Floats x) { return gated(x, x); }
/// 0.5 * x * (1 + tanh(u)) is x * sigmoid(2 * u), u = sqrt(2 / pi) * (x + 0.044715 * x^3).
EI_INLINE Floats gelu(Floats x) {
  const Floats cube = V::mul(V::mul(x, x), x);
  const Floats u = V::fma(cube, V::set(0.044715f), x);
  return gated(x, V::mul(u, V::set(1.5957691216f)));
}
/// 0.5 * x * (1 + erf(x / sqrt(2))) is max(x, 0) - |x| / 2 * erfc(|x| / sqrt(2)); erfc to 1.5e-7
/// by Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
EI_INLINE Floats gelu_erf(Floats x) {
  const Floats size = V::max(V::sub(V::set(0), x), x);
  const Floats z = V::mul(size, V::set(0.70710678f));
  const Floats t = V::div(V::set(1), V::fma(z, V::set(0.3275911f), V::set(1)));
  Floats p = V::set(1.061405429f);
  p = V::fma(p, t, V::set(-1.453152027f));
  p = V::fma(p, t, V::set(1.421413741f));
  p = V::fma(p, t, V::set(-0.284496736f));
  p = V::fma(p, t, V::set(0.254829592f));
  const Floats tail = V::mul(V::mul(p, t), exp(V::sub(V::set(0), V::mul(z, z))));
  return V::fnma(V::mul(size, V::set(0.5f)), tail, V::max(V::set(0), x));
}
/// cap * tanh(x / cap), with tanh(z) = 1 - 2 / (e^(2z) + 1).
EI_INLINE Floats softcap(Floats x, float cap) {
  const Floats e = exp(V::mul(x, V::set(2.0f / cap)));
  return V::fnma(V::set(2 * cap), V::div(V::set(1), V::add(e, V::set(1))), V::set(cap));
}

/// x[i] = f(x[i], y + i) for whole vectors: the only copy of f, also for tails.
template <class F>
EI_NOINLINE void map_vectors(float* x, const float* y, int64_t vectors, F f) {
  for (int64_t i = 0; i < vectors * kWidth; i += kWidth) V::store(x + i, f(V::load(x + i), y + i));
}

/// The same for n values; the tail goes through a padded vector.
template <class F>
EI_INLINE void map_values(float* x, const float* y, int64_t n, F f) {
  const int64_t whole = n / kWidth * kWidth, rest = n - whole;
  map_vectors(x, y, whole / kWidth, f);
  if (rest == 0) return;
  alignas(64) float x_tail[kWidth] = {}, y_tail[kWidth] = {};
  const auto bytes = static_cast<size_t>(rest) * sizeof(float);
  __builtin_memcpy(x_tail, x + whole, bytes);
  __builtin_memcpy(y_tail, y + whole, bytes);
  map_vectors(x_tail, y_tail, 1, f);
  __builtin_memcpy(x + whole, x_tail, bytes);
}

void silu_mul(float* gate, const float* up, int64_t n) {
  map_values(gate, up, n, [](Floats x, const float* y) __attribute__((always_inline)) {
    return V::mul(silu(x), V::load(y));
  });
}
void gelu_mul(float* gate, const float* up, int64_t n) {
  map_values(gate, up, n, [](Floats x, const float* y) __attribute__((always_inline)) {
    return V::mul(gelu(x), V::load(y));
  });
}
/// What gpt-oss has in place of silu(gate) * up, with its numbers.
void clamped_swiglu(float* gate, const float* up, int64_t n) {
  map_values(gate, up, n, [](Floats x, const float* y) __attribute__((always_inline)) {
    constexpr float kLimit = 7, kSlope = 1.702f;
    x = V::min(V::set(kLimit), x);  // in this order NaN stays NaN
    const Floats linear = V::min(V::set(kLimit), V::max(V::set(-kLimit), V::load(y)));
    return V::mul(gated(x, V::mul(x, V::set(kSlope))), V::add(linear, V::set(1)));
  });
}
void gelu_all(float* x, int64_t n) {
  map_values(x, x, n,
             [](Floats v, const float*) __attribute__((always_inline)) { return gelu(v); });
}
void gelu_erf_mul(float* gate, const float* up, int64_t n) {
  map_values(gate, up, n, [](Floats x, const float* y) __attribute__((always_inline)) {
    return V::mul(gelu_erf(x), V::load(y));
  });
}
void gelu_erf_all(float* x, int64_t n) {
  map_values(x, x, n,
             [](Floats v, const float*) __attribute__((always_inline)) { return gelu_erf(v); });
}
void scale_and_cap(float* x, float scale, float cap, int64_t n) {
  map_values(x, x, n, [scale, cap](Floats v, const float*) __attribute__((always_inline)) {
    v = V::mul(v, V::set(scale));
    return cap > 0 ? softcap(v, cap) : v;
  });
}

/// sum_exp of fewer values than a vector has.
EI_NOINLINE double sum_exp_tail(const float* x, float shift, int64_t n) {
  alignas(64) float tail[kWidth] = {};
  for (int64_t i = 0; i < n; ++i) tail[i] = x[i] - shift;
  V::store(tail, exp(V::load(tail)));
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += tail[i];
  return total;
}

double sum_exp(const float* x, float shift, int64_t n) {
  constexpr int64_t kBlock = 64 * kWidth;  // added up in float32, the blocks in float64
  double total = 0;
  int64_t i = 0;
  while (i + kWidth <= n) {
    Floats sum = V::set(0);
    for (const int64_t end = i + kBlock; i < end && i + kWidth <= n; i += kWidth) {
      sum = V::add(sum, exp(V::sub(V::load(x + i), V::set(shift))));
    }
    total += V::sum(sum);
  }
  return i < n ? total + sum_exp_tail(x + i, shift, n - i) : total;
}
