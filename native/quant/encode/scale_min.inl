// Searches for x = d * q - m.

struct ScaleMin {
  Floats scale, min;
};

/// Sums of w times the products of x, q and 1; the normal equations of d and m.
struct MinMoments {
  Floats w, x, q, xq, qq;
};

/// Those without q.
template <class B>
EI_INLINE MinMoments plain_moments(const B& b, int lane) {
  MinMoments m{};
  if constexpr (!B::kWeighted) {
    m.w = splat(B::kSub);
    m.x = b.sum.load_at(lane);
    return m;
  }
  for (int k = 0; k < B::kSub; ++k) {
    m.w += b.weigh(splat(1), k, lane);
    m.x += b.weigh(b.value(k, lane), k, lane);
  }
  return m;
}

/// Fills in those with q, the codes of x * inverse + offset.
template <int High, class B>
EI_INLINE void add_codes(const B& b, int lane, Floats inverse, Floats offset, MinMoments& m) {
  m.q = m.xq = m.qq = Floats{};
  for (int k = 0; k < B::kSub; ++k) {
    const Floats v = b.value(k, lane);
    const Floats q = nearest(Integers<0, High>{}, v * inverse + offset);
    const Floats wq = b.weigh(q, k, lane);
    m.q += wq;
    m.xq += wq * v;
    m.qq += wq * q;
  }
}

/// The best d and m for the codes behind the sums; Positive asks m >= 0.
template <bool Positive>
EI_INLINE ScaleMin solve(const MinMoments& s) {
  const Floats determinant = s.w * s.qq - s.q * s.q;
  // Codes that are all alike leave nothing but rounding.
  const Ints regular = determinant > 1e-5f * s.w * s.qq;
  const Floats inverse = 1.0f / select(regular, determinant, splat(1));
  const Floats d = (s.w * s.xq - s.x * s.q) * inverse, m = (s.q * s.xq - s.qq * s.x) * inverse;
  const Ints solved = regular & (d > 0.0f);
  if constexpr (Positive) {
    // One of them alone.
    const Floats scale = max(select(s.qq > 0.0f, s.xq / s.qq, Floats{}), Floats{});
    const Floats shift = select(scale > 0.0f, Floats{}, max(-s.x / s.w, Floats{}));
    const Ints whole = solved & (m >= 0.0f);
    return {select(whole, d, scale), select(whole, m, shift)};
  }
  return {select(solved, d, Floats{}), select(solved, m, -s.x / s.w)};
}

/// error(d = 0, m = 0) - error(fit).
EI_INLINE Floats gain(const MinMoments& s, const ScaleMin& fit) {
  return fit.scale * (2.0f * s.xq - fit.scale * s.qq) -
         fit.min * (2.0f * s.x + fit.min * s.w - 2.0f * fit.scale * s.q);
}

/// d >= 0 and m that minimise sum w (x - (d q - m))^2 with q in 0..High. The range of the values
/// covers High steps, or somewhat fewer or more (which cuts both ends).
template <bool Positive, int Steps, int Polish, int High, class B>
EI_INLINE ScaleMin fit_scale_min(Effort<Steps, Polish>, Integers<0, High>, const B& b, int lane) {
  Floats least = b.low.load_at(lane), most = b.high.load_at(lane);
  if constexpr (Positive) least = min(least, Floats{}), most = max(most, Floats{});
  MinMoments m = plain_moments(b, lane);
  ScaleMin best{Floats{}, -least};
  Floats best_gain = splat(-INFINITY);
  const auto attempt = [&](Floats inverse, Floats offset) EI_LAMBDA_INLINE {
    add_codes<High>(b, lane, inverse, offset, m);
    const ScaleMin found = solve<Positive>(m);
    const Floats g = gain(m, found);
    const Ints better = g > best_gain;
    best.scale = select(better, found.scale, best.scale);
    best.min = select(better, found.min, best.min);
    best_gain = select(better, g, best_gain);
  };
  const Floats range = most - least;
  const Floats unit = select(range >= kTiny, 1.0f / range, Floats{});
  constexpr float kReach = 2 * (High > 3 ? static_cast<float>(High) / 30 : 0.1f);
  if constexpr (Steps == 0) {
    attempt(unit * float{High}, -least * unit * float{High});
  } else {
    for (int t = -Steps; t <= Steps; ++t) {
      const float stretch = kReach * static_cast<float>(t) / Steps;
      const Floats inverse = unit * (float{High} + stretch), offset = -least * inverse;
      attempt(inverse, offset);
      attempt(inverse, offset - 0.5f * stretch);
    }
  }
  for (int pass = 0; pass < Polish; ++pass) {
    const Floats inverse = inverse_of(best.scale);
    attempt(inverse, best.min * inverse);
  }
  const Ints flat = range < kTiny;  // all alike
  return {select(flat, Floats{}, best.scale), select(flat, -least, best.min)};
}

template <int High, class B>
EI_INLINE Floats scale_min_error(const B& b, int lane, const ScaleMin& fit) {
  const Floats inverse = inverse_of(fit.scale);
  Floats error{};
  for (int k = 0; k < B::kSub; ++k) {
    const Floats v = b.value(k, lane) + fit.min;
    const Floats e = v - fit.scale * nearest(Integers<0, High>{}, v * inverse);
    error += b.weigh(e * e, k, lane);
  }
  return error;
}

template <int High, class B>
EI_INLINE void write_codes(const B& b, int lane, const ScaleMin& fit, Codes<B::kSub>& codes) {
  const Floats inverse = inverse_of(fit.scale);
  codes.write(lane, [&](int k) EI_LAMBDA_INLINE {
    return code_of(Integers<0, High>{}, (b.value(k, lane) + fit.min) * inverse);
  });
}

template <int High, class B>
EI_INLINE void fit(FitScaleMin<High>, B& b, Fitted* out) {
  using Search = std::conditional_t<B::kWeighted, Effort<10, 3>, Effort<0, 0>>;
  Codes<B::kSub> codes;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    ScaleMin found = fit_scale_min<false>(Search{}, Integers<0, High>{}, b, lane);
    for (int i = 0; i < kWidth; ++i) {
      Fitted& f = out[lane + i];
      f.d = to_finite_half(found.scale[i]);
      f.dmin = to_finite_half(-found.min[i]);
      found.scale[i] = to_float(f.d);
      found.min[i] = -to_float(f.dmin);
    }
    write_codes<High>(b, lane, found, codes);
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane].codes; });
}
