// The searches with a minimum: x = d q - m.
#include "quant/search.h"
#include "quant/search_vec.h"

namespace edgeinfer {
namespace {

/// Sums of w times the products of x, q and 1; the normal equations of d and m.
struct Moments {
  float w, x, q, xq, qq;
};

Moments moments(const float* x, const float* w, int n, float inverse, float offset, int high) {
  Vec sw = splat(0), sx = splat(0), sq = splat(0), sxq = splat(0), sqq = splat(0);
  for (int i = 0; i < n; i += 4) {
    const Vec v = load(x + i), weight = load(w + i);
    const Vec q = nearest(Range{0, high}, v * splat(inverse) + splat(offset));
    sw += weight;
    sx += weight * v;
    sq += weight * q;
    sxq += weight * v * q;
    sqq += weight * q * q;
  }
  return {sum(sw), sum(sx), sum(sq), sum(sxq), sum(sqq)};
}

/// The best d and m for the codes behind the sums.
ScaleMin solve(const Moments& s, bool positive) {
  const float determinant = s.w * s.qq - s.q * s.q;
  if (determinant > 0) {
    const float d = (s.w * s.xq - s.x * s.q) / determinant;
    const float m = (s.q * s.xq - s.qq * s.x) / determinant;
    if (d > 0 && (m >= 0 || !positive)) return {d, m};
  }
  if (positive) return {s.qq > 0 ? std::max(s.xq / s.qq, 0.0f) : 0, 0};
  return {0, -s.x / s.w};
}

/// error(d = 0, m = 0) - error(fit).
float gain(const Moments& s, ScaleMin fit) {
  return fit.scale * (2 * s.xq - fit.scale * s.qq) -
         fit.min * (2 * s.x + fit.min * s.w - 2 * fit.scale * s.q);
}

}  // namespace

ScaleMin fit_scale_min(const float* x, const float* w, int n, int high, bool positive) {
  float least = positive ? 0 : x[0], most = x[0];
  for (int i = 0; i < n; ++i) {
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
  }
  if (!(most > least)) return {0, -least};
  ScaleMin best{0, -least};
  float best_gain = -INFINITY;
  const auto try_codes = [&](float inverse, float offset) {
    const Moments m = moments(x, w, n, inverse, offset, high);
    const ScaleMin fit = solve(m, positive);
    const float g = gain(m, fit);
    if (g > best_gain) best = fit, best_gain = g;
  };
  // The range of the values covers `high` steps, or somewhat fewer or more (which cuts both ends).
  const float step = static_cast<float>(high) / 30;
  for (int t = -10; t <= 10; ++t) {
    const float stretch = std::max(0.1f, step) * 0.2f * static_cast<float>(t);
    const float inverse = (static_cast<float>(high) + stretch) / (most - least);
    try_codes(inverse, -least * inverse);
    try_codes(inverse, -least * inverse - 0.5f * stretch);
  }
  for (int pass = 0; pass < 4 && best.scale > 0; ++pass) {
    const float before = best_gain;
    try_codes(1 / best.scale, best.min / best.scale);
    if (best_gain <= before) break;
  }
  return best;
}

float scale_min_error(const float* x, const float* w, int n, ScaleMin fit, int high) {
  const Vec inverse = splat(inverse_of(fit.scale)), d = splat(fit.scale), m = splat(fit.min);
  Vec error = splat(0);
  for (int i = 0; i < n; i += 4) {
    const Vec v = load(x + i) + m, e = v - d * nearest(Range{0, high}, v * inverse);
    error += load(w + i) * e * e;
  }
  return sum(error);
}

void write_codes(const float* x, int n, ScaleMin fit, int high, uint8_t* codes) {
  const Vec inverse = splat(inverse_of(fit.scale)), m = splat(fit.min);
  for (int i = 0; i < n; i += 4) {
    const Vec q = nearest(Range{0, high}, (load(x + i) + m) * inverse);
    for (int j = 0; j < 4; ++j) codes[i + j] = static_cast<uint8_t>(q[j]);
  }
}

void fit_block(const Samples<256>& samples, int sub, int scale_high, int high,
               ScaledMinBlock& out) {
  const int count = 256 / sub;
  ScaleMin fits[16];
  float most_scale = 0, most_min = 0;
  for (int s = 0; s < count; ++s) {
    fits[s] = fit_scale_min(samples.x + sub * s, samples.w + sub * s, sub, high, true);
    most_scale = std::max(most_scale, fits[s].scale);
    most_min = std::max(most_min, fits[s].min);
  }
  Half d = to_finite_half(most_scale / static_cast<float>(scale_high));
  Half dmin = to_finite_half(most_min / static_cast<float>(scale_high));

  // Integer scales and minimums by their real error, then the best d and dmin for them.
  float best_error = INFINITY;
  for (int pass = 0; pass < 3; ++pass) {
    const float unit = to_float(d), unit_min = to_float(dmin);
    uint8_t scales[16], mins[16];
    float error = 0;
    // Sums of w times the products of x, a = scale * q and b = -min.
    double xa = 0, xb = 0, aa = 0, ab = 0, bb = 0;
    for (int s = 0; s < count; ++s) {
      const float *x = samples.x + sub * s, *w = samples.w + sub * s;
      const int scale = quantise(fits[s].scale, unit, 0, scale_high);
      const int min = quantise(fits[s].min, unit_min, 0, scale_high);
      float least = INFINITY;
      for (int c = std::max(scale - 1, 0); c <= std::min(scale + 1, scale_high); ++c) {
        for (int m = std::max(min - 1, 0); m <= std::min(min + 1, scale_high); ++m) {
          const ScaleMin fit{unit * static_cast<float>(c), unit_min * static_cast<float>(m)};
          const float e = scale_min_error(x, w, sub, fit, high);
          if (e < least) {
            least = e;
            scales[s] = static_cast<uint8_t>(c);
            mins[s] = static_cast<uint8_t>(m);
          }
        }
      }
      error += least;
      const float c = scales[s], m = mins[s], inverse = inverse_of(unit * c);
      const Moments sums = moments(x, w, sub, inverse, unit_min * m * inverse, high);
      xa += c * sums.xq;
      xb -= m * sums.x;
      aa += c * c * sums.qq;
      ab -= c * m * sums.q;
      bb += m * m * sums.w;
    }
    if (!(error < best_error)) break;
    best_error = error;
    out.d = d;
    out.dmin = dmin;
    std::copy_n(scales, count, out.scales);
    std::copy_n(mins, count, out.mins);
    const double determinant = aa * bb - ab * ab;
    if (determinant > 1e-9 * aa * bb) {
      d = to_finite_half(static_cast<float>(std::max(0.0, (bb * xa - ab * xb) / determinant)));
      dmin = to_finite_half(static_cast<float>(std::max(0.0, (aa * xb - ab * xa) / determinant)));
    } else if (aa > 0) {
      d = to_finite_half(static_cast<float>(std::max(0.0, xa / aa)));
    }
  }
  for (int s = 0; s < count; ++s) {
    const ScaleMin fit{to_float(out.d) * out.scales[s], to_float(out.dmin) * out.mins[s]};
    write_codes(samples.x + sub * s, sub, fit, high, out.codes + sub * s);
  }
}

}  // namespace edgeinfer
