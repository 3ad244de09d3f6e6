// Searches for x = d * (2 * scale + 1) * level, levels by points of a grid: the i-quants below 4
// bits. As in blocks.inl, scales are fitted to sub-blocks first, and then integers and their unit
// are chosen by the error that they really cause.

/// The points of a sub-block, and what is beside them.
template <int Count, int Eights>
struct Points {
  Ints low[Count], high[Count];
  Ints beside[Eights];  // of eight values: all bits if one sign is turned, or if shifted down

  EI_INLINE void put(int point, const Pick& pick) {
    low[point] = pick.low();
    high[point] = pick.high;
  }
  EI_INLINE void take(Ints where, const Points& other) {
    for (int i = 0; i < Count; ++i) low[i] = where ? other.low[i] : low[i];
    for (int i = 0; i < Count; ++i) high[i] = where ? other.high[i] : high[i];
    for (int i = 0; i < Eights; ++i) beside[i] = where ? other.beside[i] : beside[i];
  }
};

template <class Q, class B>
struct PointSearch {
  using R = std::remove_const_t<decltype(kRuns<Q>)>;
  static constexpr bool kSigned = Q::kBeside == Beside::kSigns || Q::kBeside == Beside::kEvenSigns;
  static constexpr bool kTurns = Q::kBeside == Beside::kEvenSigns;
  static constexpr int kShifted = Q::kBeside == Beside::kShiftOf8 ? 8 : 32;  // by one shift
  static constexpr int kSub = B::kSub, kPerEight = 8 / R::kValues;
  using Found = Points<kSub / R::kValues, kSub / 8>;

  const B& b;
  int lane;

  static constexpr float level_of(int rank, bool down = false) {
    return Q::kFactor * static_cast<float>(Q::kTable[rank + (down ? 4 : 0)] - Q::kBias);
  }
  static constexpr int kRanks = R::kLevels;
  static constexpr float kStep = level_of(1) - level_of(0);
  static constexpr float kDown = kSigned ? 0 : level_of(0, true) - level_of(0);

  /// What a level is chosen for.
  EI_INLINE Floats value(int k) const {
    return kSigned ? magnitude(b.value(k, lane)) : b.value(k, lane);
  }
  EI_INLINE Floats level(Ints rank) const {
    Floats q = __builtin_convertvector(rank, Floats) * kStep + level_of(0);
#pragma GCC unroll 8
    for (int r = 2; r < kRanks; ++r) {  // only where the levels are uneven
      const float more = level_of(r) - level_of(r - 1) - kStep;
      if (more != 0.0f) q += select(rank >= r, splat(more), Floats{});
    }
    return q;
  }

  /// Less than the error by points can be: as if any ranks were a point.
  EI_INLINE Floats bound(Floats scale) const {
    const Floats inverse = inverse_of(scale * kStep);
    Floats total{};
    for (int first = 0; first < kSub; first += kShifted) {
      Floats error{}, error_down{};
      for (int k = first; k < first + (kSub < kShifted ? kSub : kShifted); ++k) {
        const Floats v = value(k);
        const auto error_of = [&](float shift) EI_LAMBDA_INLINE {
          const Floats place = v * inverse - (level_of(0) + shift) / kStep;
          const Ints rank = __builtin_convertvector(round(clamp(place, 0, kRanks - 1)), Ints);
          const Floats e = v - scale * (level(rank) + shift);
          return b.weigh(e * e, k, lane);
        };
        error += error_of(0);
        if constexpr (!kSigned) error_down += error_of(kDown);
      }
      total += kSigned ? error : min(error, error_down);
    }
    return total;
  }

  /// Finds the best points for a scale. Returns their error less that of zeros.
  EI_INLINE Floats pick(Floats scale, Found& found) const {
    Floats total{};
    for (int eight = 0; eight < kSub / 8; eight += kSigned ? 1 : kShifted / 8) {
      if constexpr (kSigned) {
        total += pick_signs(scale, eight, found);
      } else {
        total += pick_shift(scale, eight, found);
      }
    }
    return total;
  }

  /// At the values from `first`. Not inlined: the code is long and is called for in many places.
  __attribute__((noinline)) void look(Floats scale, float shift, int first, Pick& best,
                                      Pick& turned) const {
    HalfTables<Q, kTurns> tables;
    Floats levels[kRanks];
    for (int r = 0; r < kRanks; ++r) levels[r] = scale * (level_of(r) + shift);
    tables.fill([&](int r) EI_LAMBDA_INLINE { return levels[r]; },
                [&](int j) EI_LAMBDA_INLINE { return value(first + j); },
                [&](Floats q, int j) EI_LAMBDA_INLINE { return b.weigh(q, first + j, lane); });
    tables.search(best, turned);
  }

  EI_INLINE Floats pick_signs(Floats scale, int eight, Found& found) const {
    Pick best[kPerEight], turned[kPerEight];
    for (int p = 0; p < kPerEight; ++p) {
      look(scale, 0, 8 * eight + p * R::kValues, best[p], turned[p]);
    }
    Ints odd{};
    if constexpr (kTurns) {
      for (int j = 0; j < 8; ++j) odd ^= b.value(8 * eight + j, lane) < 0.0f;
      if constexpr (kPerEight == 1) {
        best[0].improve(odd, turned[0]);
      } else {
        const Ints first = turned[0].error + best[1].error < best[0].error + turned[1].error;
        best[0].improve(odd & first, turned[0]);
        best[1].improve(odd & ~first, turned[1]);
      }
    }
    found.beside[eight] = odd;
    Floats error{};
    for (int p = 0; p < kPerEight; ++p) {
      found.put(eight * kPerEight + p, best[p]);
      error += best[p].error;
    }
    return error;
  }

  EI_INLINE Floats pick_shift(Floats scale, int eight, Found& found) const {
    constexpr int kCount = kShifted / 8;
    Pick up[kCount], down[kCount], none;
    Floats error{}, error_down{};
    for (int p = 0; p < kCount; ++p) {
      look(scale, 0, 8 * (eight + p), up[p], none);
      look(scale, kDown, 8 * (eight + p), down[p], none);
      error += up[p].error;
      error_down += down[p].error;
    }
    const Ints goes_down = error_down < error;
    for (int p = 0; p < kCount; ++p) {
      up[p].improve(goes_down, down[p]);
      found.put(eight + p, up[p]);
      found.beside[eight + p] = goes_down;
    }
    return min(error_down, error);
  }

  /// Calls see(k, rank, level, minus) for the value of each k; the level has its sign.
  template <class See>
  EI_INLINE void for_each_value(const Found& found, const See& see) const {
    constexpr const R& runs = kRuns<Q>;
    for (int eight = 0; eight < kSub / 8; ++eight) {
      Ints ranks[8], minus[8] = {};
      Floats q[8];
      for (int p = 0; p < kPerEight; ++p) {
        const int point = eight * kPerEight + p;
        alignas(64) uint32_t digits_of[2][kLanes];
        for (int i = 0; i < kWidth; ++i) {
          digits_of[0][i] = runs.digits[found.low[point][i]];
          digits_of[1][i] = runs.digits[found.high[point][i]];
        }
        Ints digits[2];
        for (int half = 0; half < 2; ++half)
          std::memcpy(&digits[half], digits_of[half], sizeof(Ints));
        constexpr int kHalf = R::kValues / 2;
        for (int j = 0; j < R::kValues; ++j) {
          ranks[p * R::kValues + j] = digits[j / kHalf] >> (8 * (j % kHalf)) & 255;
        }
      }
      for (int j = 0; j < 8; ++j) {
        q[j] = level(ranks[j]);
        if constexpr (kSigned) minus[j] = b.value(8 * eight + j, lane) < 0.0f;
      }
      if constexpr (kTurns) turn(eight, found.beside[eight], q, minus);
      for (int j = 0; j < 8; ++j) {
        if constexpr (kSigned)
          q[j] = select(minus[j], -q[j], q[j]);
        else
          q[j] += select(found.beside[eight], splat(kDown), Floats{});
        see(8 * eight + j, ranks[j], q[j], minus[j]);
      }
    }
  }
  /// Where one sign must be turned, it is that which costs least.
  EI_INLINE void turn(int eight, Ints odd, const Floats* q, Ints* minus) const {
    Floats least = splat(INFINITY);
    Ints which{};
    for (int j = 0; j < 8; ++j) {
      const int k = 8 * eight + j;
      const Floats cost = b.weigh(value(k) * q[j], k, lane);
      const Ints better = cost < least;
      least = select(better, cost, least);
      which = better ? Ints{} + j : which;
    }
    for (int j = 0; j < 8; ++j) minus[j] ^= odd & (which == Ints{} + j);
  }

  EI_INLINE Moments moments(const Found& found) const {
    Moments m{Floats{}, Floats{}};
    for_each_value(found, [&](int k, Ints, Floats q, Ints) EI_LAMBDA_INLINE {
      const Floats wq = b.weigh(q, k, lane);
      m.xq += wq * b.value(k, lane);
      m.qq += wq * q;
    });
    return m;
  }
};

/// The scale that minimises the error by points. Which scales are worth a search is said by the
/// bound, which costs a tenth of one: the best is near the least bound or, as points are few,
/// above.
template <class Q, class B>
EI_INLINE Floats fit_scale(const PointSearch<Q, B>& s) {
  using Search = PointSearch<Q, B>;
  constexpr int kBounds = 10, kSearches = Search::kSigned ? 3 : 0;
  constexpr float kLow = 0.5f,
                  kHigh = 1.1f;  // of the scale that makes the largest value the last level
  const Floats unit = magnitude(extreme(s.b, s.lane)) / Search::level_of(Search::kRanks - 1);
  constexpr float kNear = 0.9f, kAbove = 1.2f;  // of the least bound's
  Floats near = unit, least = splat(INFINITY);
  for (int t = 0; t < kBounds; ++t) {
    const Floats scale = unit * (kLow + (kHigh - kLow) * static_cast<float>(t) / (kBounds - 1));
    const Floats bound = s.bound(scale);
    near = select(bound < least, scale, near);
    least = min(bound, least);
  }
  Floats best = near, best_gain{};
  typename Search::Found found;
  const auto attempt = [&](Floats scale) EI_LAMBDA_INLINE {
    s.pick(scale, found);
    const Moments m = s.moments(found);
    const Floats fitted = m.scale(), gain = m.xq * fitted;  // error(0) - error(fitted)
    best = select(gain > best_gain, fitted, best);
    best_gain = max(gain, best_gain);
  };
  for (int t = 0; t < kSearches; ++t) {
    attempt(near * (kNear + (kAbove - kNear) * static_cast<float>(t) / (kSearches - 1)));
  }
  // Magnitudes that are all alike are on a point for sure only if they are the least.
  if constexpr (Search::kSigned) {
    attempt(unit * (Search::level_of(Search::kRanks - 1) / Search::level_of(0)));
  }
  attempt(best);
  return best;
}

template <class Q, class B>
EI_INLINE void fit(FitPoints<Q>, B& b, Fitted* out) {
  using Search = PointSearch<Q, B>;
  using Found = typename Search::Found;
  constexpr int kSub = B::kSub, kPer = 256 / kSub, kBlocks = kLanes / kPer;
  constexpr int kVectors = kLanes / kWidth;
  constexpr float kMost = Q::kScaleMask;
  constexpr int kRounds = 2, kReach = Search::kSigned ? 1 : 0;  // integers on either side
  LaneFloats fits, unit, error, xx, xq, qq, chosen, better, scales{};
  Found found[kVectors] = {}, tried[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) {
    fits.store_at(v * kWidth, fit_scale(Search{b, v * kWidth}));
    xx.store_at(v * kWidth, energy(b, v * kWidth));
  }
  float best[kBlocks], along[kBlocks] = {};
  Half d[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {
    best[i] = INFINITY;
    d[i] = to_finite_half(fits.largest(kPer * i, kPer) / (2 * kMost + 1));
    unit.fill(kPer * i, kPer, to_float(d[i]));
  }
  for (int pass = 0; pass < kRounds; ++pass) {
    for (int v = 0; v < kVectors; ++v) {
      const int lane = v * kWidth;
      const Search s{b, lane};
      const Floats step = unit.load_at(lane), wanted = fits.load_at(lane) * inverse_of(step);
      const Floats centre = round(clamp((wanted - 1.0f) * 0.5f, 0, kMost));
      Floats least = splat(INFINITY), taken{};
      for (int shift = -kReach; shift <= kReach; ++shift) {
        const Floats scale = clamp(centre + static_cast<float>(shift), 0, kMost);
        Found at;
        const Floats e = s.pick(step * (scale + scale + 1.0f), at);
        const Ints less = e < least;
        tried[v].take(less, at);
        taken = select(less, scale, taken);
        least = select(less, e, least);
      }
      const Moments m = s.moments(tried[v]);
      const Floats odd = taken + taken + 1.0f;
      error.store_at(lane, least);
      chosen.store_at(lane, taken);
      xq.store_at(lane, odd * m.xq);
      qq.store_at(lane, odd * odd * m.qq);
    }
    bool improved = false;
    for (int i = 0; i < kBlocks; ++i) {
      const int first = kPer * i;
      const float total = error.sum(first, kPer);
      better.fill(first, kPer, total < best[i]);
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
    for (int v = 0; v < kVectors; ++v) found[v].take(better.load_at(v * kWidth) != 0.0f, tried[v]);
  }
  Codes<kSub> codes;
  for (int v = 0; v < kVectors; ++v) {
    Ints code[kSub];
    Search{b, v * kWidth}.for_each_value(
        found[v], [&](int k, Ints rank, Floats, Ints minus) EI_LAMBDA_INLINE {
          const Ints set = Search::kSigned ? minus : found[v].beside[k / 8];
          code[k] = rank | (set & Q::kBesideCode);
        });
    codes.write(v * kWidth, [&](int k) EI_LAMBDA_INLINE { return code[k]; });
  }
  for (int i = 0; i < kBlocks; ++i) {
    const float by = stretch(xx.sum(kPer * i, kPer), along[i]);
    out[i].d = to_finite_half(to_float(out[i].d) * by);
  }
  for (int i = 0; i < kLanes; ++i) {
    out[i / kPer].scales[i % kPer] = static_cast<int16_t>(scales.at[i]);
  }
  codes.read([&](int lane)
                 EI_LAMBDA_INLINE { return out[lane / kPer].codes + lane % kPer * kSub; });
}
