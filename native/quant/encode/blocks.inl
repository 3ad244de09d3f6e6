// Blocks of 256 values whose sub-blocks have integer scales (and minimums): the integers are
// chosen by the error that they really cause, then the best unit for them is solved for; thrice.

/// The integer in low..high that comes nearest to d in steps of `unit`.
EI_INLINE Floats quantise(Floats d, Floats unit, float low, float high) {
  return round(clamp(d * inverse_of(unit), low, high));
}

constexpr int kPasses = 3;

template <class Grid, int Sub, int ScaleLow, int ScaleHigh, class B>
EI_INLINE void fit(FitScales<Grid, Sub, ScaleLow, ScaleHigh>, B& b, Fitted* out) {
  constexpr int kPer = 256 / Sub, kBlocks = kLanes / kPer;
  LaneFloats fits, unit, error, xx, xq, qq, chosen, scales;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    fits.store_at(lane, fit_scale(Effort<6, 3>{}, Grid{}, b, lane));
    xx.store_at(lane, energy(b, lane));
  }
  float best[kBlocks], along[kBlocks] = {};
  Half d[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {
    best[i] = INFINITY;
    d[i] = to_finite_half(fits.largest(kPer * i, kPer) / ScaleLow);
    unit.fill(kPer * i, kPer, to_float(d[i]));
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Floats step = unit.load_at(lane);
      const Floats centre = quantise(fits.load_at(lane), step, ScaleLow, ScaleHigh);
      Floats least = splat(INFINITY), taken{};
      for (int shift = -1; shift <= 1; ++shift) {
        const Floats c = clamp(centre + static_cast<float>(shift), ScaleLow, ScaleHigh);
        const Floats e = scale_error(Grid{}, b, lane, step * c);
        taken = select(e < least, c, taken);
        least = min(e, least);
      }
      const Moments m = moments(Grid{}, b, lane, inverse_of(step * taken));
      error.store_at(lane, least);
      chosen.store_at(lane, taken);
      xq.store_at(lane, taken * m.xq);
      qq.store_at(lane, taken * taken * m.qq);
    }
    bool improved = false;
    for (int i = 0; i < kBlocks; ++i) {
      const int first = kPer * i;
      const float total = error.sum(first, kPer);
      if (!(total < best[i])) continue;
      improved = true;
      best[i] = total;
      out[i].d = d[i];
      std::memcpy(scales.at + first, chosen.at + first, kPer * sizeof(float));
      const float q = qq.sum(first, kPer), x = xq.sum(first, kPer);
      along[i] = to_float(d[i]) * x;
      if (q > 0) d[i] = to_finite_half(x / q);
      unit.fill(first, kPer, to_float(d[i]));
    }
    if (!improved) break;
  }
  Codes<Sub> codes;
  for (int i = 0; i < kBlocks; ++i) unit.fill(kPer * i, kPer, to_float(out[i].d));
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    write_codes(Grid{}, b, lane, unit.load_at(lane) * scales.load_at(lane), codes);
  }
  for (int i = 0; i < kBlocks; ++i) {
    const float by = stretch(xx.sum(kPer * i, kPer), along[i]);
    out[i].d = to_finite_half(to_float(out[i].d) * by);
  }
  for (int i = 0; i < kLanes; ++i) {
    out[i / kPer].scales[i % kPer] = static_cast<int16_t>(scales.at[i]);
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane / kPer].codes + lane % kPer * Sub; });
}

template <int High, int Sub, int ScaleHigh, class B>
EI_INLINE void fit(FitScalesMins<High, Sub, ScaleHigh>, B& b, Fitted* out) {
  constexpr int kPer = 256 / Sub, kBlocks = kLanes / kPer;
  LaneFloats fit_scales, fit_mins, unit, unit_min, error, scales, mins, scale, min_of;
  LaneFloats xx, xa, xb, aa, ab, bb;  // sums of w times products of x, a = scale * q and b = -min
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const ScaleMin found = fit_scale_min<true>(Effort<10, 3>{}, Integers<0, High>{}, b, lane);
    fit_scales.store_at(lane, found.scale);
    fit_mins.store_at(lane, found.min);
    xx.store_at(lane, energy(b, lane));
  }
  float best[kBlocks], along[kBlocks] = {};
  Half d[kBlocks], dmin[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {
    best[i] = INFINITY;
    d[i] = to_finite_half(fit_scales.largest(kPer * i, kPer) / ScaleHigh);
    dmin[i] = to_finite_half(fit_mins.largest(kPer * i, kPer) / ScaleHigh);
    unit.fill(kPer * i, kPer, to_float(d[i]));
    unit_min.fill(kPer * i, kPer, to_float(dmin[i]));
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Floats step = unit.load_at(lane), step_min = unit_min.load_at(lane);
      const Floats centre = quantise(fit_scales.load_at(lane), step, 0, ScaleHigh);
      const Floats centre_min = quantise(fit_mins.load_at(lane), step_min, 0, ScaleHigh);
      Floats least = splat(INFINITY), taken{}, taken_min{};
      for (int i = -1; i <= 1; ++i) {
        const Floats c = clamp(centre + static_cast<float>(i), 0, ScaleHigh);
        for (int j = -1; j <= 1; ++j) {
          const Floats m = clamp(centre_min + static_cast<float>(j), 0, ScaleHigh);
          const Floats e = scale_min_error<High>(b, lane, {step * c, step_min * m});
          taken = select(e < least, c, taken);
          taken_min = select(e < least, m, taken_min);
          least = min(e, least);
        }
      }
      error.store_at(lane, least);
      scale.store_at(lane, taken);
      min_of.store_at(lane, taken_min);
      MinMoments m = plain_moments(b, lane);
      const Floats inverse = inverse_of(step * taken);
      add_codes<High>(b, lane, inverse, step_min * taken_min * inverse, m);
      xa.store_at(lane, taken * m.xq);
      xb.store_at(lane, -taken_min * m.x);
      aa.store_at(lane, taken * taken * m.qq);
      ab.store_at(lane, -taken * taken_min * m.q);
      bb.store_at(lane, taken_min * taken_min * m.w);
    }
    bool improved = false;
    for (int i = 0; i < kBlocks; ++i) {
      const int first = kPer * i;
      const float total = error.sum(first, kPer);
      if (!(total < best[i])) continue;
      improved = true;
      best[i] = total;
      out[i].d = d[i];
      out[i].dmin = dmin[i];
      std::memcpy(scales.at + first, scale.at + first, kPer * sizeof(float));
      std::memcpy(mins.at + first, min_of.at + first, kPer * sizeof(float));
      const double sum_xa = xa.sum(first, kPer), sum_xb = xb.sum(first, kPer);
      const double sum_aa = aa.sum(first, kPer), sum_ab = ab.sum(first, kPer);
      const double sum_bb = bb.sum(first, kPer);
      const float a = to_float(d[i]), m = to_float(dmin[i]);
      along[i] = a * static_cast<float>(sum_xa) + m * static_cast<float>(sum_xb);
      const double determinant = sum_aa * sum_bb - sum_ab * sum_ab;
      const auto positive = [](double x) EI_LAMBDA_INLINE {
        return to_finite_half(x > 0 ? static_cast<float>(x) : 0);
      };
      if (determinant > 1e-9 * sum_aa * sum_bb) {
        d[i] = positive((sum_bb * sum_xa - sum_ab * sum_xb) / determinant);
        dmin[i] = positive((sum_aa * sum_xb - sum_ab * sum_xa) / determinant);
      } else if (sum_aa > 0) {
        d[i] = positive(sum_xa / sum_aa);
      }
      unit.fill(first, kPer, to_float(d[i]));
      unit_min.fill(first, kPer, to_float(dmin[i]));
    }
    if (!improved) break;
  }
  Codes<Sub> codes;
  for (int i = 0; i < kBlocks; ++i) {
    unit.fill(kPer * i, kPer, to_float(out[i].d));
    unit_min.fill(kPer * i, kPer, to_float(out[i].dmin));
  }
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    write_codes<High>(b, lane,
                      ScaleMin{unit.load_at(lane) * scales.load_at(lane),
                               unit_min.load_at(lane) * mins.load_at(lane)},
                      codes);
  }
  for (int i = 0; i < kBlocks; ++i) {
    const float by = stretch(xx.sum(kPer * i, kPer), along[i]);
    out[i].d = to_finite_half(to_float(out[i].d) * by);
    out[i].dmin = to_finite_half(to_float(out[i].dmin) * by);
  }
  for (int i = 0; i < kLanes; ++i) {
    out[i / kPer].scales[i % kPer] = static_cast<int16_t>(scales.at[i]);
    out[i / kPer].mins[i % kPer] = static_cast<int16_t>(mins.at[i]);
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane / kPer].codes + lane % kPer * Sub; });
}
