// What recurrent layers are made of: gates and short causal convolutions.

void multiply(float* y, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) V::store(y + i, V::mul(V::load(y + i), V::load(x + i)));
  for (; i < n; ++i) y[i] *= x[i];
}

/// A convolution of whole vectors of channels: the only copy, also for tails.
EI_NOINLINE void convolve_vectors(const float* const* rows, const float* w, int64_t w_stride,
                                  int64_t taps, bool activate, int64_t vectors, float* out) {
  for (int64_t i = 0; i < vectors * kWidth; i += kWidth) {
    Floats sum = V::mul(V::load(rows[0] + i), V::load(w + i));
    for (int64_t j = 1; j < taps; ++j)
      sum = V::fma(V::load(rows[j] + i), V::load(w + j * w_stride + i), sum);
    V::store(out + i, activate ? silu(sum) : sum);
  }
}

void convolve(const float* const* rows, const float* w, int64_t taps, bool activate, int64_t n,
              float* out) {
  const int64_t whole = n / kWidth * kWidth, rest = n - whole;
  convolve_vectors(rows, w, n, taps, activate, whole / kWidth, out);
  if (rest == 0) return;
  alignas(64) float x_tail[kMostTaps][kWidth] = {}, w_tail[kMostTaps][kWidth] = {};
  alignas(64) float y_tail[kWidth];
  const float* tails[kMostTaps];
  const auto bytes = static_cast<size_t>(rest) * sizeof(float);
  for (int64_t j = 0; j < taps; ++j) {
    __builtin_memcpy(x_tail[j], rows[j] + whole, bytes);
    __builtin_memcpy(w_tail[j], w + j * n + whole, bytes);
    tails[j] = x_tail[j];
  }
  convolve_vectors(tails, w_tail[0], kWidth, taps, activate, 1, y_tail);
  __builtin_memcpy(out + whole, y_tail, bytes);
}
