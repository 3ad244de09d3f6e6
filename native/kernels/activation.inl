// exp, and the gated activations made of it.

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
/// cap * tanh(x / cap), with tanh(z) = 1 - 2 / (e^(2z) + 1).
EI_INLINE Floats softcap(Floats x, float cap) {
  const Floats e = exp(V::mul(x, V::set(2.0f / cap)));
  return V::fnma(V::set(2 * cap), V::div(V::set(1), V::add(e, V::set(1))), V::set(cap));
}

/// gate[i] = f(gate[i]) * up[i]; the tail goes through a padded vector.
template <class F>
EI_INLINE void gate_rows(float* gate, const float* up, int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    V::store(gate + i, V::mul(f(V::load(gate + i)), V::load(up + i)));
  }
  if (i < n) {
    alignas(64) float tail[kWidth] = {};
    for (int64_t j = i; j < n; ++j) tail[j - i] = gate[j];
    V::store(tail, f(V::load(tail)));
    for (int64_t j = i; j < n; ++j) gate[j] = tail[j - i] * up[j];
  }
}

void silu_mul(float* gate, const float* up, int64_t n) {
  gate_rows(gate, up, n, [](Floats x) __attribute__((always_inline)) { return silu(x); });
}
void gelu_mul(float* gate, const float* up, int64_t n) {
  gate_rows(gate, up, n, [](Floats x) __attribute__((always_inline)) { return gelu(x); });
}
