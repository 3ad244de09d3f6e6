// Vectors and grids for the searches; included by them alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/search.h"

namespace edgeinfer {

// Four lanes are what every target has.
using Vec = float __attribute__((vector_size(16)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec splat(float x) { return Vec{x, x, x, x}; }
inline float sum(Vec v) { return (v[0] + v[1]) + (v[2] + v[3]); }
inline Vec clamp(Vec v, float low, float high) {
  v = v > splat(low) ? v : splat(low);  // NaN becomes low
  return v < splat(high) ? v : splat(high);
}
/// To the nearest integer for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
inline Vec round(Vec v) {
  const Vec magic = splat(12582912.0f);
  return (v + magic) - magic;
}

/// The values of the grid nearest to v.
inline Vec nearest(const Range& grid, Vec v) {
  return round(clamp(v, static_cast<float>(grid.low), static_cast<float>(grid.high)));
}
inline int slot(const Levels& grid, float v) {
  return static_cast<int>((v - static_cast<float>(grid.low)) * 2);
}
inline Vec nearest(const Levels& grid, Vec v) {
  v = clamp(v, static_cast<float>(grid.low), static_cast<float>(grid.high));
  for (int i = 0; i < 4; ++i) v[i] = grid.value[slot(grid, v[i])];
  return v;
}

/// The code of a value that nearest() returned.
inline uint8_t code_of(const Range& grid, float value) {
  return static_cast<uint8_t>(static_cast<int>(value) - grid.low);
}
inline uint8_t code_of(const Levels& grid, float value) { return grid.code[slot(grid, value)]; }

inline float inverse_of(float d) { return d != 0 ? 1 / d : 0; }

/// The integer in low..high that comes nearest to d in steps of `unit`.
inline int quantise(float d, float unit, int low, int high) {
  const float q = std::nearbyint(d * inverse_of(unit));
  return static_cast<int>(std::clamp(q, static_cast<float>(low), static_cast<float>(high)));
}

}  // namespace edgeinfer
