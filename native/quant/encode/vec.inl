// Vectors of the unit's own width, in the compiler's vector extension.
//
// The lanes of a batch are 16 sub-blocks, so that no sum crosses lanes: whatever the width, the
// same operations happen to a value in the same order, and every ISA writes the same bytes.

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kLanes = 16;

using Floats = float __attribute__((vector_size(4 * kWidth)));
using Ints = int32_t __attribute__((vector_size(4 * kWidth)));

EI_INLINE Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
EI_INLINE void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }
EI_INLINE Floats splat(float x) { return Floats{} + x; }
EI_INLINE Floats select(Ints mask, Floats a, Floats b) { return mask ? a : b; }
EI_INLINE Floats magnitude(Floats v) {
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(v) & 0x7fffffff);
}
EI_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
EI_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }
/// NaN becomes low.
EI_INLINE Floats clamp(Floats v, float low, float high) {
  return min(max(v, splat(low)), splat(high));
}
/// To the nearest integer for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
EI_INLINE Floats round(Floats v) { return (v + 12582912.0f) - 12582912.0f; }
EI_INLINE Floats inverse_of(Floats d) { return select(d != 0.0f, 1.0f / d, Floats{}); }

/// Nearest half that is finite.
EI_INLINE Half to_finite_half(float f) {
  return to_half(f > 65504.0f ? 65504.0f : f < -65504.0f ? -65504.0f : f);
}

// A grid is a type: nearest() finds the value of the grid next to v, code_of() its code.

template <int Low, int High>
EI_INLINE Floats nearest(Integers<Low, High>, Floats v) {
  return round(clamp(v, Low, High));
}
template <int Low, int High>
EI_INLINE Ints code_of(Integers<Low, High>, Floats v) {
  return __builtin_convertvector(nearest(Integers<Low, High>{}, v), Ints) - Low;
}
template <int Low, int High>
constexpr float lowest(Integers<Low, High>) {
  return Low;
}
template <int Low, int High>
constexpr float highest(Integers<Low, High>) {
  return High;
}

template <auto L>
constexpr float middle(int i) {  // of level i and the one below
  return 0.5f * static_cast<float>(L.values[i - 1] + L.values[i]);
}

/// Whether 0 is a level and each other one has its negative: then magnitudes are enough.
template <auto L>
constexpr bool is_symmetric() {
  bool symmetric = L.kCount % 2 == 1;
  for (int i = 0; i < L.kCount; ++i) symmetric &= L.values[i] == -L.values[L.kCount - 1 - i];
  return symmetric;
}

template <auto L>
EI_INLINE Floats nearest(LevelGrid<L>, Floats v) {
  constexpr int kFirst = is_symmetric<L>() ? L.kCount / 2 : 0;
  const Floats place = kFirst > 0 ? magnitude(v) : v;
  Floats q = splat(static_cast<float>(L.values[kFirst]));
#pragma GCC unroll 16
  for (int i = kFirst + 1; i < L.kCount; ++i) {
    const float step = static_cast<float>(L.values[i] - L.values[i - 1]);
    q += select(place >= middle<L>(i), splat(step), Floats{});
  }
  if constexpr (kFirst > 0) return v < 0.0f ? -q : q;
  return q;
}
template <auto L>
EI_INLINE Ints code_of(LevelGrid<L>, Floats v) {
  constexpr int kFirst = is_symmetric<L>() ? L.kCount / 2 : 0;
  const Floats place = kFirst > 0 ? magnitude(v) : v;
  Ints code{};
#pragma GCC unroll 16
  for (int i = kFirst + 1; i < L.kCount; ++i) code -= place >= middle<L>(i);
  if constexpr (kFirst > 0) return kFirst + (v < 0.0f ? -code : code);
  return code;
}
template <auto L>
constexpr float lowest(LevelGrid<L>) {
  return static_cast<float>(L.values[0]);
}
template <auto L>
constexpr float highest(LevelGrid<L>) {
  return static_cast<float>(L.values[L.kCount - 1]);
}
