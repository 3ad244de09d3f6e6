// A few tokens: the accumulators of all stay in registers while the weights pass once, as one
// linear stream.

/// One group times T tokens.
template <class Q, int T>
EI_NOINLINE void multiply_group(const uint8_t* group, int64_t rows, int64_t row,
                                const Activations& x, float* y, int64_t y_stride) {
  using P = Packed<Q>;
  Floats acc[T][kParts];
  unroll<T>(EI_LAMBDA(t) { unroll<kParts>(EI_LAMBDA(v) { acc[t][v] = V::set(0); }); });
  const ActBlock* a = x.blocks;
  for (int64_t b = 0; b < x.cols / Q::kBlock; ++b, group += P::kBlockBytes) {
    BlockScales<Q> scales[kParts];
    const auto expand_scales = EI_LAMBDA(v) { scales[v].expand(P::scales(group), v * kWidth); };
    if constexpr (P::kSteps > 1) unroll<kParts>(expand_scales);
    for (int s = 0; s < P::kSteps; ++s, a += x.block_stride) {
      const uint8_t* step = group + s * P::kStepBytes;
      prefetch_step<Q>(step);
      const int sub = s * BlockScales<Q>::kPerStep;
      unroll<kParts>(EI_LAMBDA(v) {
        if constexpr (v > 0) EI_LOAD_AGAIN();
        if constexpr (P::kSteps == 1) expand_scales(v);
        Ints codes[1][8];
        const StepRows<Q> step_rows{step + 4 * kWidth * v, &P::scales(group), s, v * kWidth};
        if constexpr (T > 1) expand_codes<Q>(step_rows, codes[0]);
        unroll<T>(EI_LAMBDA(t) {
          Floats f[2];
          unroll<2>(EI_LAMBDA(h) {
            if constexpr (T == 1) expand_codes<Q, 4 * h, 4>(step_rows, codes[0]);
            Ints sum;
            half_sums<Q, 1, 0>(codes, a[t], h, &sum);
            f[h] = V::to_f32(sum);
          });
          const Floats* scale = scales[v].scale + sub;
          const Floats product = step_product<Q, 1>(f[0], f[1], scale, a[t]);
          acc[t][v] = add_step<Q>(product, product_factor<Q>(scale, a[t]),
                                  scales[v].min + (Q::kMins ? sub : 0), a[t], acc[t][v]);
        });
      });
    }
  }
  unroll<T>(EI_LAMBDA(t) {
    unroll<kParts>(EI_LAMBDA(v) {
      const int64_t r = row + v * kWidth;
      if (r < rows) store_rows(y + t * y_stride + r, acc[t][v], rows - r);
    });
  });
}

/// At most V::kFewTokens tokens.
template <class Q>
EI_INLINE void matmul_few(const uint8_t* packed, int64_t rows, int64_t g0, int64_t g1,
                          const Activations& x, float* y, int64_t y_stride) {
  const int64_t group_bytes = packed_group_bytes<Q>(x.cols);
  for (int64_t g = g0; g < g1; ++g) {
    unroll<V::kFewTokens>(EI_LAMBDA(i) {
      if (x.tokens == i + 1) {
        multiply_group<Q, i + 1>(packed + g * group_bytes, rows, g * kGroupRows, x, y, y_stride);
      }
    });
  }
}
