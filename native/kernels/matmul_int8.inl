// Matrix product of quantised weights and int8 activations (see int8_step.inl).

template <class Q>
void matmul_int8(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1, const Activations& x,
                 float* y, int64_t y_stride) {
  if (x.tokens <= V::kFewTokens) {
    matmul_few<Q>(packed, rows, g0, g1, x, y, y_stride);
  } else {
    matmul_many<Q>(packed, rows, g0, g1, x, y, y_stride);
  }
}
