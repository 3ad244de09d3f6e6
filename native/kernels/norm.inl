// Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467).

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* y) {
  constexpr int kChains = 4;
  Floats sums[kChains];
  unroll<kChains>(EI_LAMBDA(c) { sums[c] = V::set(0); });
  int64_t i = 0;
  for (; i + kChains * kWidth <= n; i += kChains * kWidth) {
    unroll<kChains>(EI_LAMBDA(c) {
      const Floats a = V::load(x + i + c * kWidth);
      sums[c] = V::fma(a, a, sums[c]);
    });
  }
  float total = V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  for (; i < n; ++i) total += x[i] * x[i];
  const float factor = 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
  for (i = 0; i + kWidth <= n; i += kWidth) {
    V::store(y + i, V::mul(V::mul(V::load(x + i), V::set(factor)), V::load(w + i)));
  }
  for (; i < n; ++i) y[i] = x[i] * factor * w[i];
}

void add_scaled(float* y, const float* x, float scale, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    V::store(y + i, V::fma(V::load(x + i), V::set(scale), V::load(y + i)));
  }
  for (; i < n; ++i) y[i] += x[i] * scale;
}
