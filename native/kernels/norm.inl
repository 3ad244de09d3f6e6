// Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467) and layer
// normalisation (Ba et al. 2016, arXiv:1607.06450).

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

/// The sum of f(x[i]) over n values, in four chains.
template <class F>
EI_INLINE float sum_of(const float* x, int64_t n, F f) {
  constexpr int kChains = 4;
  Floats sums[kChains];
  unroll<kChains>(EI_LAMBDA(c) { sums[c] = V::set(0); });
  int64_t i = 0;
  for (; i + kChains * kWidth <= n; i += kChains * kWidth) {
    unroll<kChains>(EI_LAMBDA(c) { sums[c] = V::add(sums[c], f(V::load(x + i + c * kWidth))); });
  }
  float total = V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  for (; i < n; ++i) {
    alignas(64) float lanes[kWidth];
    V::store(lanes, f(V::set(x[i])));
    total += lanes[0];
  }
  return total;
}

void layer_norm(const float* x, const float* w, const float* b, float eps, int64_t n, float* y) {
  const auto count = static_cast<float>(n);
  const float mean =
      sum_of(x, n, [](Floats v) __attribute__((always_inline)) { return v; }) / count;
  // In a second pass: the squares' mean less the mean's square would cancel.
  const float variance = sum_of(x, n,
                                [mean](Floats v) __attribute__((always_inline)) {
                                  const Floats d = V::sub(v, V::set(mean));
                                  return V::mul(d, d);
                                }) /
                         count;
  const float factor = 1.0f / __builtin_sqrtf(variance + eps);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Floats d = V::mul(V::sub(V::load(x + i), V::set(mean)), V::set(factor));
    V::store(y + i, V::fma(d, V::load(w + i), V::load(b + i)));
  }
  for (; i < n; ++i) y[i] = (x[i] - mean) * factor * w[i] + b[i];
}

void add_scaled(float* y, const float* x, float scale, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    V::store(y + i, V::fma(V::load(x + i), V::set(scale), V::load(y + i)));
  }
  for (; i < n; ++i) y[i] += x[i] * scale;
}
