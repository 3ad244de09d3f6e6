#include "quant/search.h"

#include "quant/search_vec.h"

namespace edgeinfer {
namespace {

constexpr float kTiny = 0x1p-40f, kHuge = 0x1p40f;

/// Sums of w x q and w q q.
struct Moments {
  float xq, qq;
  float scale() const { return qq > 0 ? xq / qq : 0; }
  float gain() const { return qq > 0 ? xq * (xq / qq) : 0; }  // error(0) - error(best scale)
};

template <class Grid>
Moments moments(const float* x, const float* w, int n, float inverse, const Grid& grid) {
  Vec xq = splat(0), qq = splat(0);
  for (int i = 0; i < n; i += 4) {
    const Vec v = load(x + i), q = nearest(grid, v * splat(inverse)), wq = load(w + i) * q;
    xq += wq * v;
    qq += wq * q;
  }
  return {sum(xq), sum(qq)};
}

}  // namespace

template <class Grid>
float fit_scale(const float* x, const float* w, int n, const Grid& grid) {
  float extreme = 0;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (extreme == 0) return 0;
  // The extreme value lands on either end of the grid, or up to a step beside it. A step is
  // relative to the width of the grid: with few codes it pays to cut the tails.
  const float step = (static_cast<float>(grid.high - grid.low)) / 15;
  Moments best{0, 0};
  const auto try_inverse = [&](float inverse) {
    const Moments m = moments(x, w, n, inverse, grid);
    if (m.gain() > best.gain()) best = m;
  };
  for (const float end : {static_cast<float>(grid.low), static_cast<float>(grid.high)}) {
    for (int t = -9; t <= 9; ++t) {
      try_inverse((end + 0.1f * step * static_cast<float>(t)) / extreme);
    }
  }
  for (int pass = 0; pass < 4 && best.scale() != 0; ++pass) {
    const float gain = best.gain();
    try_inverse(1 / best.scale());
    if (best.gain() <= gain) break;
  }
  return best.scale();
}

template <class Grid>
float scale_error(const float* x, const float* w, int n, float d, const Grid& grid) {
  const Vec inverse = splat(inverse_of(d));
  Vec error = splat(0);
  for (int i = 0; i < n; i += 4) {
    const Vec v = load(x + i), e = v - splat(d) * nearest(grid, v * inverse);
    error += load(w + i) * e * e;
  }
  return sum(error);
}

template <class Grid>
void write_codes(const float* x, int n, float d, const Grid& grid, uint8_t* codes) {
  const Vec inverse = splat(inverse_of(d));
  for (int i = 0; i < n; i += 4) {
    const Vec q = nearest(grid, load(x + i) * inverse);
    for (int j = 0; j < 4; ++j) codes[i + j] = code_of(grid, q[j]);
  }
}

Levels::Levels(const uint8_t* table, int bias)
    : low(*std::min_element(table, table + 16) - bias),
      high(*std::max_element(table, table + 16) - bias) {
  for (int i = 0; i < 512; ++i) {
    const float v = static_cast<float>(low) + (static_cast<float>(i) + 0.5f) / 2;
    const auto distance = [&](uint8_t level) {
      return std::fabs(static_cast<float>(level - bias) - v);
    };
    const auto* best = std::min_element(
        table, table + 16, [&](uint8_t a, uint8_t b) { return distance(a) < distance(b); });
    value[i] = static_cast<float>(*best - bias);
    code[i] = static_cast<uint8_t>(best - table);
  }
}

template <int N>
Samples<N>::Samples(const float* values, const float* importance) {
  float largest = 0;
  for (int i = 0; i < N; ++i) {
    const float v = std::clamp(values[i], -kHuge, kHuge);
    x[i] = std::fabs(v) >= kTiny ? v : 0;  // NaN becomes 0 too
    w[i] = importance && importance[i] > 0 ? std::min(importance[i], kHuge) : 0;
    largest = std::max(largest, w[i]);
  }
  for (int i = 0; i < N; ++i) w[i] = largest > 0 ? std::max(w[i] / largest, 1e-6f) : 1;
}

template struct Samples<32>;
template struct Samples<256>;

Half to_finite_half(float f) { return to_half(std::clamp(f, -65504.0f, 65504.0f)); }

template <class Grid>
void fit_block(const Samples<256>& samples, int sub, Range scales, const Grid& grid,
               ScaledBlock& out) {
  const int count = 256 / sub;
  float fits[16], largest = 0;
  for (int s = 0; s < count; ++s) {
    fits[s] = fit_scale(samples.x + sub * s, samples.w + sub * s, sub, grid);
    if (std::fabs(fits[s]) > std::fabs(largest)) largest = fits[s];
  }
  out.d = to_finite_half(largest / static_cast<float>(scales.low));

  // Integer scales by their real error, then the best d for them; twice settles it.
  float best_error = INFINITY;
  Half d = out.d;
  for (int pass = 0; pass < 3; ++pass) {
    const float unit = to_float(d);
    int chosen[16];
    float error = 0, xq = 0, qq = 0;
    for (int s = 0; s < count; ++s) {
      const float *x = samples.x + sub * s, *w = samples.w + sub * s;
      const int centre = quantise(fits[s], unit, scales.low, scales.high);
      float least = INFINITY;
      for (int c = std::max(centre - 1, scales.low); c <= std::min(centre + 1, scales.high); ++c) {
        const float e = scale_error(x, w, sub, unit * static_cast<float>(c), grid);
        if (e < least) least = e, chosen[s] = c;
      }
      error += least;
      if (chosen[s] != 0 && unit != 0) {
        const float c = static_cast<float>(chosen[s]);
        const Moments m = moments(x, w, sub, 1 / (unit * c), grid);
        xq += c * m.xq;
        qq += c * c * m.qq;
      }
    }
    if (!(error < best_error)) break;
    best_error = error;
    out.d = d;
    std::copy_n(chosen, count, out.scales);
    if (qq > 0) d = to_finite_half(xq / qq);
  }
  for (int s = 0; s < count; ++s) {
    write_codes(samples.x + sub * s, sub, to_float(out.d) * static_cast<float>(out.scales[s]), grid,
                out.codes + sub * s);
  }
}

#define EI_GRID(Grid)                                                              \
  template float fit_scale(const float*, const float*, int, const Grid&);          \
  template float scale_error(const float*, const float*, int, float, const Grid&); \
  template void write_codes(const float*, int, float, const Grid&, uint8_t*);      \
  template void fit_block(const Samples<256>&, int, Range, const Grid&, ScaledBlock&);
EI_GRID(Range)
EI_GRID(Levels)
#undef EI_GRID

}  // namespace edgeinfer
