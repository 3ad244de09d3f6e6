// Searches for x = d * q.
//
// The error as a function of the scale has many local minima (every value that changes its code
// makes one), so a search tries scales around the one that maps the largest value to the last
// code, solves for the best scale of the codes that each gives (weighted least squares), and
// polishes the winner by alternating the two.

/// Sums of w x q and w q q.
struct Moments {
  Floats xq, qq;

  EI_INLINE Floats scale() const { return select(qq > 0.0f, xq / qq, Floats{}); }
};

template <class Grid, class B>
EI_INLINE Moments moments(Grid grid, const B& b, int lane, Floats inverse) {
  Moments m{Floats{}, Floats{}};
  for (int k = 0; k < B::kSub; ++k) {
    const Floats v = b.value(k, lane), q = nearest(grid, v * inverse), wq = b.weigh(q, k, lane);
    m.xq += wq * v;
    m.qq += wq * q;
  }
  return m;
}

/// Sum of w x x.
template <class B>
EI_INLINE Floats energy(const B& b, int lane) {
  Floats total{};
  for (int k = 0; k < B::kSub; ++k) {
    const Floats v = b.value(k, lane);
    total += b.weigh(v * v, k, lane);
  }
  return total;
}

/// By how much to stretch a block of 256 values. The scale of least error comes out short: along x
/// the block has only (sum w x y) / (sum w x x) of its length, 1 less the share of error, and so
/// has what is computed from it, in queries and keys, in gates, layer after layer. That costs a
/// model more than the error that it saves. Seven tenths of what is missing are given back: what
/// the shortness costs goes with its square, and so does what stretching adds to the error. Blocks
/// of 32 miss little, and so few values tell little of how much.
EI_INLINE float stretch(float energy, float along) {
  constexpr float kShare = 0.7f;
  constexpr float kMost = 2;  // with half of its length missing a block says hardly anything
  if (!(along > 0)) return 1;
  return 1 + kShare * ((energy < kMost * along ? energy / along : kMost) - 1);
}

/// The value of largest magnitude; 0 if it is too small to divide by.
template <class B>
EI_INLINE Floats extreme(const B& b, int lane) {
  const Floats high = b.high.load_at(lane), low = b.low.load_at(lane);
  const Floats v = select(high >= -low, high, low);
  return select(magnitude(v) >= kTiny, v, Floats{});
}

/// How hard to look: Steps scales on either side of each end of the grid, and Polish passes.
template <int Steps, int Polish>
struct Effort {};

/// The scale d that minimises sum w (x - d q)^2.
template <int Steps, int Polish, class Grid, class B>
EI_INLINE Floats fit_scale(Effort<Steps, Polish>, Grid grid, const B& b, int lane) {
  // The extreme value lands on either end of the grid, or up to a step beside it. A step is
  // relative to the width of the grid: with few codes it pays to cut the tails.
  constexpr float kLow = lowest(Grid{}), kHigh = highest(Grid{});
  constexpr float kReach = 0.06f * (kHigh - kLow);
  const Floats unit = inverse_of(extreme(b, lane));
  Floats best{}, best_gain{};
  const auto attempt = [&](Floats inverse) EI_LAMBDA_INLINE {
    const Moments m = moments(grid, b, lane, inverse);
    const Floats scale = m.scale(), gain = m.xq * scale;  // error(0) - error(scale)
    best = select(gain > best_gain, scale, best);
    best_gain = max(gain, best_gain);
  };
  if constexpr (Steps == 0) {
    // With as many codes on both sides, the wider one.
    attempt(unit * (-kLow >= kHigh ? kLow : kHigh));
  } else {
    for (int t = -Steps; t <= Steps; ++t) {
      const float shift = kReach * static_cast<float>(t) / Steps;
      attempt(unit * (kLow + shift));
      attempt(unit * (kHigh + shift));
    }
  }
  for (int pass = 0; pass < Polish; ++pass) attempt(inverse_of(best));
  return best;
}

template <class Grid, class B>
EI_INLINE Floats scale_error(Grid grid, const B& b, int lane, Floats d) {
  const Floats inverse = inverse_of(d);
  Floats error{};
  for (int k = 0; k < B::kSub; ++k) {
    const Floats v = b.value(k, lane), e = v - d * nearest(grid, v * inverse);
    error += b.weigh(e * e, k, lane);
  }
  return error;
}

template <class Grid, class B>
EI_INLINE void write_codes(Grid grid, const B& b, int lane, Floats d, Codes<B::kSub>& codes) {
  const Floats inverse = inverse_of(d);
  codes.write(lane,
              [&](int k) EI_LAMBDA_INLINE { return code_of(grid, b.value(k, lane) * inverse); });
}

template <class Grid, int PlainSteps, class B>
EI_INLINE void fit(FitScale<Grid, PlainSteps>, B& b, Fitted* out) {
  using Search = Effort<B::kWeighted ? 9 : PlainSteps, B::kWeighted || PlainSteps ? 3 : 1>;
  Codes<B::kSub> codes;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    Floats d = fit_scale(Search{}, Grid{}, b, lane);
    for (int i = 0; i < kWidth; ++i) {
      out[lane + i].d = to_finite_half(d[i]);
      d[i] = to_float(out[lane + i].d);
    }
    write_codes(Grid{}, b, lane, d, codes);
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane].codes; });
}

/// With 8 bits a search gains nothing worth its time.
template <class B>
EI_INLINE void fit(FitLargest, B& b, Fitted* out) {
  Codes<B::kSub> codes;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Floats largest = max(b.high.load_at(lane), -b.low.load_at(lane));
    const Floats d = min(largest / 127.0f, splat(65504.0f)), inverse = inverse_of(d);
    for (int i = 0; i < kWidth; ++i) out[lane + i].d = to_half(d[i]);
    codes.write(lane, [&](int k) EI_LAMBDA_INLINE {
      // Halves go away from zero, as the format's reference rounds.
      const Floats v = clamp(b.value(k, lane) * inverse, -127, 127);
      const Ints sign = reinterpret_cast<Ints>(v) & static_cast<int32_t>(0x80000000);
      const Floats half = reinterpret_cast<Floats>(reinterpret_cast<Ints>(splat(0.5f)) | sign);
      // Just below a half the sum would round up to the next integer.
      const Ints whole = __builtin_convertvector(v, Ints);
      const Floats rest = magnitude(v - __builtin_convertvector(whole, Floats));
      const Ints up = rest >= 0.5f;
      return (whole + (up & __builtin_convertvector(half + half, Ints))) & 255;
    });
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane].codes; });
}

/// Tries the power of two that brings the largest magnitude to 4..8 and its neighbours.
template <class Grid, class B>
EI_INLINE void fit(FitPower<Grid>, B& b, Fitted* out) {
  constexpr int kMaxFinite = 252;  // 12 * 2^(253 - 128) is no float32
  Codes<B::kSub> codes;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Floats largest = max(b.high.load_at(lane), -b.low.load_at(lane));
    Ints centre = (reinterpret_cast<Ints>(largest) >> 23) - 2;  // subnormal ones become 0
    centre = centre < 0 ? Ints{} : centre;
    centre = centre > kMaxFinite ? Ints{} + kMaxFinite : centre;
    // Searched near 1: powers of two change nothing but the exponent. 128 - centre in two parts.
    const Ints part = (128 - centre) >> 1, rest = 128 - centre - part;
    const Floats by = reinterpret_cast<Floats>((part + 127) << 23);
    const Floats and_by = reinterpret_cast<Floats>((rest + 127) << 23);
    for (int k = 0; k < B::kSub; ++k) store(&b.x[k][lane], b.value(k, lane) * by * and_by);
    Floats least = splat(INFINITY), best = splat(1);
    Ints exponent = centre;
    for (int shift = -1; shift <= 1; ++shift) {
      const Floats d = splat(shift < 0 ? 0.5f : shift > 0 ? 2.0f : 1.0f);
      const Floats error = scale_error(Grid{}, b, lane, d);
      const Ints e = centre + shift;
      const Ints better = (error < least) & (e >= 0) & (e <= kMaxFinite);
      least = select(better, error, least);
      best = select(better, d, best);
      exponent = better ? e : exponent;
    }
    for (int i = 0; i < kWidth; ++i) out[lane + i].scales[0] = static_cast<int16_t>(exponent[i]);
    write_codes(Grid{}, b, lane, best, codes);
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane].codes; });
}
