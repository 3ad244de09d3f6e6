// Searches for scales: what the encoders of all types with a scale share.
//
// Each minimises the squared error, weighed by the importance of the values. The error as a
// function of the scale has many local minima (every value that changes its code makes one), so
// a search tries scales around the one that maps the largest value to the last code, solves for
// the best scale of the codes that each gives (weighted least squares), and polishes the winner
// by alternating the two. Types with scales of scales then choose the stored integers by the
// error they really cause.
#pragma once

#include <cstdint>

#include "core/half.h"

namespace edgeinfer {

/// A grid of the integers low..high; the code of low is 0.
struct Range {
  int low, high;
};

/// A grid of 16 integer levels, table[code] - bias, that span less than 256. Midpoints between
/// levels are multiples of one half, so the nearest level is a look-up of floor(2 v).
struct Levels {
  Levels(const uint8_t* table, int bias);

  int low, high;
  float value[512];  // of slot 2 (v - low)
  uint8_t code[512];
};

/// A block that is safe to search: NaN became 0, magnitudes lie in 0 or 2^-40..2^40, the largest
/// weight is 1 and none is 0. Without importance all weights are 1.
template <int N>
struct Samples {
  alignas(16) float x[N];
  alignas(16) float w[N];

  Samples(const float* values, const float* importance);
};

/// Nearest half that is finite.
Half to_finite_half(float f);

/// The scale d that minimises sum w (x - d q)^2 with q in the grid. n is a multiple of 4.
template <class Grid>
float fit_scale(const float* x, const float* w, int n, const Grid& grid);

/// sum w (x - d q)^2 with the nearest q in the grid.
template <class Grid>
float scale_error(const float* x, const float* w, int n, float d, const Grid& grid);

/// Writes the codes of x / d.
template <class Grid>
void write_codes(const float* x, int n, float d, const Grid& grid, uint8_t* codes);

struct ScaleMin {
  float scale, min;
};

/// d >= 0 and m that minimise sum w (x - (d q - m))^2 with q in 0..high. `positive` asks m >= 0.
ScaleMin fit_scale_min(const float* x, const float* w, int n, int high, bool positive);

float scale_min_error(const float* x, const float* w, int n, ScaleMin fit, int high);

void write_codes(const float* x, int n, ScaleMin fit, int high, uint8_t* codes);

/// A block of sub-blocks with integer scales: x = (d * scales[s]) * q.
struct ScaledBlock {
  Half d;
  int scales[16];
  uint8_t codes[256];
};

/// Fits 256 values in sub-blocks of `sub`, with scales in `scales`.
template <class Grid>
void fit_block(const Samples<256>& samples, int sub, Range scales, const Grid& grid,
               ScaledBlock& out);

/// A block of sub-blocks with integer scales and minimums: x = (d * scales[s]) * q - dmin *
/// mins[s].
struct ScaledMinBlock {
  Half d, dmin;
  uint8_t scales[16], mins[16];
  uint8_t codes[256];
};

/// Fits 256 values in sub-blocks of `sub`, codes in 0..high, scales and minimums in 0..scale_high.
void fit_block(const Samples<256>& samples, int sub, int scale_high, int high, ScaledMinBlock& out);

}  // namespace edgeinfer
