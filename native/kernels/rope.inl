// Rotary position embedding (Su et al. 2021, arXiv:2104.09864); the angles come from outside.

void rope(float* x, int64_t heads, int64_t head_dim, int64_t rope_dim, const float* cos,
          const float* sin, bool neighbours) {
  const int64_t half = rope_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    if (neighbours) {
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
      }
      continue;
    }
    int64_t i = 0;
    for (; i + kWidth <= half; i += kWidth) {
      const Floats a = V::load(x + i), b = V::load(x + half + i);
      const Floats c = V::load(cos + i), s = V::load(sin + i);
      V::store(x + i, V::sub(V::mul(a, c), V::mul(b, s)));
      V::store(x + half + i, V::fma(a, s, V::mul(b, c)));
    }
    for (; i < half; ++i) {
      const float a = x[i], b = x[half + i];
      x[i] = a * cos[i] - b * sin[i];
      x[half + i] = a * sin[i] + b * cos[i];
    }
  }
}
