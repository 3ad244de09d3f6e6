// A batch: 16 sub-blocks of Sub values side by side, as the lanes of vectors.

template <int N>
struct VectorOf {
  typedef float Type __attribute__((vector_size(4 * N)));
};
template <int N>
using Part = typename VectorOf<N>::Type;
template <int... I>
using Indices = std::integer_sequence<int, I...>;

/// Four values of each of the rows p[0], p[4], p[8] ...: as many as a vector holds.
template <int N>
EI_INLINE Part<N> load_fours(const float* const* p, int k) {
  if constexpr (N == 4) {
    Part<4> v;
    std::memcpy(&v, *p + k, sizeof v);
    return v;
  } else {
    const auto a = load_fours<N / 2>(p, k), b = load_fours<N / 2>(p + N / 2, k);
    return [&]<int... I>(Indices<I...>) EI_LAMBDA_INLINE {
      return __builtin_shufflevector(a, b, I...);
    }(std::make_integer_sequence<int, N>{});
  }
}

/// Of every four lanes of a and b: pairs of ones from `First` on, a b a b ...
template <int First, int... I>
EI_INLINE Floats interleave(Floats a, Floats b, Indices<I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + First + I % 4 / 2 + I % 2 * kWidth)...);
}
/// Two of a, then two of b.
template <int First, int... I>
EI_INLINE Floats join(Floats a, Floats b, Indices<I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + First + I % 2 + I % 4 / 2 * kWidth)...);
}

/// Writes Sub values of kLanes rows as columns, squares of four by four.
template <int Sub>
EI_INLINE void transpose(const float* const* lanes, float (*to)[kLanes]) {
  constexpr std::make_integer_sequence<int, kWidth> kAll;
  for (int k = 0; k < Sub; k += 4) {
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Floats a = load_fours<kWidth>(lanes + lane, k);
      const Floats b = load_fours<kWidth>(lanes + lane + 1, k);
      const Floats c = load_fours<kWidth>(lanes + lane + 2, k);
      const Floats d = load_fours<kWidth>(lanes + lane + 3, k);
      const Floats ab = interleave<0>(a, b, kAll), cd = interleave<0>(c, d, kAll);
      const Floats ab_high = interleave<2>(a, b, kAll), cd_high = interleave<2>(c, d, kAll);
      store(&to[k][lane], join<0>(ab, cd, kAll));
      store(&to[k + 1][lane], join<2>(ab, cd, kAll));
      store(&to[k + 2][lane], join<0>(ab_high, cd_high, kAll));
      store(&to[k + 3][lane], join<2>(ab_high, cd_high, kAll));
    }
  }
}

constexpr float kTiny = 0x1p-40f, kHuge = 0x1p40f;
constexpr int kMostSub = 256;
alignas(64) constexpr float kZeros[kMostSub] = {};  // what lanes beyond the end read

/// Lanes in memory, where those of one block meet.
struct LaneFloats {
  alignas(64) float at[kLanes];

  EI_INLINE Floats load_at(int lane) const { return load(at + lane); }
  EI_INLINE void store_at(int lane, Floats v) { store(at + lane, v); }
  EI_INLINE void fill(int first, int count, float value) {
    for (int i = first; i < first + count; ++i) at[i] = value;
  }
  EI_INLINE float sum(int first, int count) const {
    float total = 0;
    for (int i = first; i < first + count; ++i) total += at[i];
    return total;
  }
  EI_INLINE float largest(int first, int count) const {  // in magnitude
    float found = 0;
    for (int i = first; i < first + count; ++i) {
      if (__builtin_fabsf(at[i]) > __builtin_fabsf(found)) found = at[i];
    }
    return found;
  }
};

/// Values and their weights; safe to search: no NaN, no magnitude above 2^40. The largest weight
/// of a block is 1 and none is below 1e-6; without importance all are 1 and `w` is not written.
template <int N, bool W>
struct Batch {
  static_assert(N <= kMostSub);
  static constexpr int kSub = N;
  static constexpr bool kWeighted = W;
  alignas(64) float x[N][kLanes];
  alignas(64) float w[W ? N : 1][kLanes];
  LaneFloats low, high, sum;  // of x

  /// Sub-blocks [first, first + 16) of `count` that lie one after the other; those beyond the
  /// end are 0. Block is the values that weights are comparable over; the importance of the
  /// columns repeats after `cols`.
  template <int Block>
  EI_INLINE void read(const float* values, const float* importance, int64_t cols, int64_t first,
                      int64_t count) {
    const float* lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      lanes[i] = first + i < count ? values + (first + i) * N : kZeros;
    }
    transpose<N>(lanes, x);
    if (!survey()) {
      clean();
      survey();
    }
    if constexpr (W) {
      for (int i = 0; i < kLanes; ++i) {
        lanes[i] = first + i < count ? importance + (first + i) * N % cols : kZeros;
      }
      transpose<N>(lanes, w);
      normalise<Block / N>();
    }
  }

  /// Returns whether the values are safe.
  EI_INLINE bool survey() {
    Ints good = Ints{} - 1;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      Floats least = value(0, lane), most = least, total{};
      for (int k = 0; k < N; ++k) {
        const Floats v = value(k, lane);
        least = min(v, least);
        most = max(v, most);
        total += v;
      }
      // A NaN may have passed the comparisons, but not the sum.
      good &= (least >= -kHuge) & (most <= kHuge) & (total == total);
      low.store_at(lane, least);
      high.store_at(lane, most);
      sum.store_at(lane, total);
    }
    int32_t all = -1;
    for (int i = 0; i < kWidth; ++i) all &= good[i];
    return all != 0;
  }

  EI_INLINE void clean() {
    for (int k = 0; k < N; ++k) {
      for (int lane = 0; lane < kLanes; lane += kWidth) {
        const Floats v = value(k, lane);
        store(&x[k][lane], clamp(select(v == v, v, Floats{}), -kHuge, kHuge));
      }
    }
  }

  /// Of every `Group` lanes the largest weight becomes 1.
  template <int Group>
  EI_INLINE void normalise() {
    LaneFloats scale;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      Floats largest{};
      for (int k = 0; k < N; ++k) {
        const Floats v = clamp(load(&w[k][lane]), 0, kHuge);  // NaN becomes 0
        store(&w[k][lane], v);
        largest = max(v, largest);
      }
      scale.store_at(lane, largest);
    }
    for (int lane = 0; lane < kLanes; lane += Group) {
      scale.fill(lane, Group, scale.largest(lane, Group));
    }
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Floats largest = scale.load_at(lane);
      // No division, in two parts: the inverse alone may be infinite.
      const Ints known = largest > 0.0f;
      const Floats by = inverse_of(max(largest, splat(0x1p-100f)));
      const Floats first = select(largest < 0x1p-100f, splat(0x1p100f), splat(1));
      for (int k = 0; k < N; ++k) {
        const Floats v = max(load(&w[k][lane]) * first * by, splat(1e-6f));
        store(&w[k][lane], select(known, min(v, splat(1)), splat(1)));
      }
    }
  }

  EI_INLINE Floats value(int k, int lane) const { return load(&x[k][lane]); }
  /// v times the weight.
  EI_INLINE Floats weigh(Floats v, int k, int lane) const {
    if constexpr (W) return v * load(&w[k][lane]);
    return v;
  }
};

/// Codes of a batch, four of a lane in a dword.
template <int N>
struct Codes {
  alignas(64) int32_t dwords[N / 4][kLanes];

  /// code(k) gives those of value k for the lanes from `lane`.
  template <class Code>
  EI_INLINE void write(int lane, const Code& code) {
    for (int k = 0; k < N; k += 4) {
      const Ints four = code(k) | code(k + 1) << 8 | code(k + 2) << 16 | code(k + 3) << 24;
      std::memcpy(&dwords[k / 4][lane], &four, sizeof four);
    }
  }
  /// Gives each lane its codes, where place(lane) says, in pieces as large as join() reads.
  template <class Place>
  EI_INLINE void read(const Place& place) const {
    for (int j = 0; j < N / 4; j += 4) {
      for (int lane = 0; lane < kLanes; lane += 4) {
        Part<4> a, b, c, d;  // bits only
        std::memcpy(&a, &dwords[j][lane], 16);
        std::memcpy(&b, &dwords[j + 1][lane], 16);
        std::memcpy(&c, &dwords[j + 2][lane], 16);
        std::memcpy(&d, &dwords[j + 3][lane], 16);
        const auto ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        const auto cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const auto ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        const auto cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        const Part<4> rows[4] = {__builtin_shufflevector(ab, cd, 0, 1, 4, 5),
                                 __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                                 __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                                 __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
        for (int i = 0; i < 4; ++i) std::memcpy(place(lane + i) + 4 * j, &rows[i], 16);
      }
    }
  }
};
