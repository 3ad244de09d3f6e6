// Rows of keys and values in the cache, for every type that a cache can have (kernel_set.h).

/// Largest magnitude of 32 values; NaN if one is NaN.
EI_INLINE float peak_of(const float* x) {
  Floats peak = V::set(0);
  for (int i = 0; i < kStep; i += kWidth) peak = V::max(peak, V::abs(V::load(x + i)));
  return V::maximum(peak);
}

/// The nearest integers in [low, high] to 32 values times `inverse`.
EI_INLINE void round_to_codes(const float* x, float inverse, float low, float high, int8_t* q) {
  for (int i = 0; i < kStep; i += kWidth) {
    const Floats scaled = V::mul(V::load(x + i), V::set(inverse));
    V::store_s8(q + i, V::to_i32(V::min(V::max(scaled, V::set(low)), V::set(high))));
  }
}

EI_INLINE Half finite_half(float d) {
  return to_half(d > 65504.0f ? 65504.0f : d < -65504.0f ? -65504.0f : d);
}
EI_INLINE float inverse_or_zero(float d) { return d != 0 ? 1 / d : 0; }

EI_INLINE Half fit_q8_0(const float* x) { return finite_half(peak_of(x) / 127); }

/// Of a few scales that map the extreme value near an end of the grid, the one whose codes leave
/// the least squared error with their own best scale (quant/search.h tries ten times as many).
EI_INLINE Half fit_q4_0(const float* x) {
  Floats high = V::load(x), low = high;
  for (int i = kWidth; i < kStep; i += kWidth) {
    high = V::max(high, V::load(x + i));
    low = V::min(low, V::load(x + i));
  }
  const float top = V::maximum(high), bottom = -V::maximum(V::sub(V::set(0), low));
  const float extreme = top > -bottom ? top : bottom;
  float best = extreme != extreme ? extreme : 0, gain = 0;
  const float inverse = inverse_or_zero(extreme);
  for (const float end : {-8.8f, -8.0f, -7.2f, 6.6f, 7.4f}) {
    Floats xq = V::set(0), qq = xq;
    for (int i = 0; i < kStep; i += kWidth) {
      const Floats v = V::load(x + i), scaled = V::mul(v, V::set(end * inverse));
      const Floats clamped = V::min(V::max(scaled, V::set(-8)), V::set(7));
      const Floats q = V::to_f32(V::to_i32(clamped));
      xq = V::fma(v, q, xq);
      qq = V::fma(q, q, qq);
    }
    const float product = V::sum(xq), squares = V::sum(qq);
    if (product * product > gain * squares) {
      gain = product * product / squares;
      best = product / squares;
    }
  }
  return finite_half(best);
}

/// What a cache needs to know of a block type: the scale of 32 values, and the grid's ends.
template <class Q>
struct KvGrid;
template <>
struct KvGrid<Q8_0> {
  static constexpr float kLow = -127, kHigh = 127;
  static EI_INLINE Half fit(const float* x) { return fit_q8_0(x); }
};
template <>
struct KvGrid<Q4_0> {
  static constexpr float kLow = -8, kHigh = 7;
  static EI_INLINE Half fit(const float* x) { return fit_q4_0(x); }
};

/// The types a cache can have: floats, and those with a KvGrid.
template <class Q>
concept KvType = FloatType<Q> || requires { KvGrid<Q>::kLow; };

/// 32 codes, and returns their scale.
template <class Q>
EI_INLINE Half encode_codes(const float* x, uint8_t* codes) {
  const Half d = KvGrid<Q>::fit(x);
  int8_t q[kStep];
  round_to_codes(x, inverse_or_zero(to_float(d)), KvGrid<Q>::kLow, KvGrid<Q>::kHigh, q);
  for (int i = 0; i < kStep; ++i) codes[i] = static_cast<uint8_t>(q[i] + Q::kBias);
  return d;
}

EI_INLINE void to_value(float x, float& y) { y = x; }
EI_INLINE void to_value(float x, Half& y) { y = to_half(x); }
EI_INLINE void to_value(float x, BFloat16& y) { y = to_bfloat16(x); }

template <KvType Q>
void store_key(const float* row, int64_t dim, int64_t place, uint8_t* keys) {
  if constexpr (FloatType<Q>) {
    using Value = typename Q::Value;
    auto* column = reinterpret_cast<Value*>(keys) + place / kKvTile * kKvTile * dim;
    for (int64_t d = 0; d < dim; ++d) {
      to_value(row[d], column[kKvTile * d + place % kKvTile]);
    }
  } else {
    using P = Packed<Q>;
    const auto lane = place % kGroupRows;
    uint8_t* block = keys + place / kGroupRows * packed_group_bytes<Q>(dim);
    for (int64_t d = 0; d < dim; d += kStep, block += P::kBlockBytes) {
      alignas(16) int32_t dwords[kStep / 4];
      const Half scale = encode_codes<Q>(row + d, reinterpret_cast<uint8_t*>(dwords));
      pack_plane<LaneSimd, Q::kLowBits, 0>(dwords, block + 4 * lane);
      reinterpret_cast<typename Q::Scales*>(block + P::kCodeBytes)->d[lane] = scale;
    }
  }
}

/// Rows of blocks {scale, codes}: bytes, or nibbles of which the first 16 are the low ones.
template <KvType Q>
void store_value(const float* row, int64_t dim, int64_t place, uint8_t* values) {
  if constexpr (FloatType<Q>) {
    auto* out = reinterpret_cast<typename Q::Value*>(values) + place * dim;
    for (int64_t d = 0; d < dim; ++d) to_value(row[d], out[d]);
  } else {
    auto* block = reinterpret_cast<typename Q::Block*>(values) + place * (dim / kStep);
    for (int64_t d = 0; d < dim; d += kStep, ++block) {
      uint8_t codes[kStep];
      block->d = encode_codes<Q>(row + d, codes);
      auto* bytes = reinterpret_cast<uint8_t*>(block->q);
      if constexpr (Q::kLowBits == 4) {
        for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
      } else {
        for (int i = 0; i < kStep; ++i) bytes[i] = codes[i];
      }
    }
  }
}

/// One block of store_value as floats.
template <class Q>
EI_INLINE void load_block(const typename Q::Block& block, float* out) {
  const Floats d = V::set(to_float(block.d));
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.q);
  const auto put = [&](int i, Ints codes) __attribute__((always_inline)) {
    V::store(out + i, V::mul(d, V::to_f32(V::sub(codes, V::set_i32(Q::kBias)))));
  };
  constexpr int kBytes = kStep * Q::kLowBits / 8;
  for (int i = 0; i < kBytes; i += kWidth) {
    const Ints codes = V::load_u8(bytes + i);
    if constexpr (Q::kLowBits == 4) {
      put(i, V::bit_and(codes, V::set_i32(15)));
      put(i + 16, V::template shift_right<4>(codes));
    } else {
      put(i, codes);
    }
  }
}

template <class Q>
constexpr auto store_key_of() -> void (*)(const float*, int64_t, int64_t, uint8_t*) {
  if constexpr (KvType<Q>) return &store_key<Q>;
  return nullptr;
}
template <class Q>
constexpr auto store_value_of() -> void (*)(const float*, int64_t, int64_t, uint8_t*) {
  if constexpr (KvType<Q>) return &store_value<Q>;
  return nullptr;
}

/// The Walsh-Hadamard matrix of a vector's lanes: -1 to the number of bits that i and j share.
struct LaneSigns {
  float rows[kWidth][kWidth];

  constexpr LaneSigns() : rows() {
    for (int i = 0; i < kWidth; ++i) {
      for (int j = 0; j < kWidth; ++j) rows[i][j] = __builtin_popcount(i & j) % 2 ? -1.0f : 1.0f;
    }
  }
};
alignas(64) constexpr LaneSigns kLaneSigns;

/// y = H x in place for every `size` (a power of two, at least 16) of n values, where H is the
/// Walsh-Hadamard matrix over sqrt(size), its own inverse. It spreads outlying channels over all,
/// which block types need (Ashkboos et al. 2024, arXiv:2404.00456).
void hadamard(float* x, int64_t size, int64_t n) {
  for (int64_t half = kWidth; half < size; half *= 2) {
    for (int64_t i = 0; i < n; i += 2 * half) {
      for (int64_t j = i; j < i + half; j += kWidth) {
        const Floats a = V::load(x + j), b = V::load(x + j + half);
        V::store(x + j, V::add(a, b));
        V::store(x + j + half, V::sub(a, b));
      }
    }
  }
  const Floats scale = V::set(1 / __builtin_sqrtf(static_cast<float>(size)));
  for (int64_t i = 0; i < n; i += kWidth) {
    Floats even = V::set(0), odd = even;
    for (int lane = 0; lane < kWidth; lane += 2) {
      even = V::fma(V::set(x[i + lane]), V::load(kLaneSigns.rows[lane]), even);
      odd = V::fma(V::set(x[i + lane + 1]), V::load(kLaneSigns.rows[lane + 1]), odd);
    }
    V::store(x + i, V::mul(V::add(even, odd), scale));
  }
}
