// The best points of a grid for a scale.
//
// For a given scale the error of a point is a sum over its values, so it is the sum of two table
// entries, one for the lower half of its digits and one for the upper half: tables of 81 (3 levels,
// 4 values) or 64 sums (8 levels, 2 values). That makes the whole grid cheap to look at, a minimum
// a point: of those with the same upper half, the least of the lower halves is found first. What
// comes out is the best point there is, not the best of a neighbourhood.
//
// Where the number of minus signs must be even, tables are also kept of the least errors with one
// sign turned, which adds 4 w |x| q for that value: so the point and the sign that is turned, if
// one must be, are the best pair.

/// The points of a grid as runs of equal upper halves. The digits of a half are one number.
template <class Point, int Radix, int Count>
struct Runs {
  static constexpr int kLevels = Radix;
  static constexpr int kValues = sizeof(Point);                      // of a point
  static constexpr int kHalves = kValues == 8 ? 81 : Radix * Radix;  // numbers that a half can be
  static_assert(kValues == 8 ? Radix == 3 : kValues == 4 && kHalves <= 128);

  int count = 0;
  uint8_t high[kHalves];
  uint16_t first[kHalves + 1];  // in low
  uint8_t low[Count];
  uint32_t digits[kHalves];  // of a half, a byte each

  constexpr explicit Runs(const Grid<Point, Radix, Count>& grid)
      : high(), first(), low(), digits() {
    for (int i = 0; i < kHalves; ++i) {
      for (int j = 0, rest = i; j < kValues / 2; ++j, rest /= Radix) {
        digits[i] |= static_cast<uint32_t>(rest % Radix) << (8 * j);
      }
    }
    for (int i = 0; i < Count; ++i) {  // ascending, the upper half counting more
      int halves[2] = {};
      for (int j = kValues - 1; j >= 0; --j) {
        int& half = halves[j >= kValues / 2];
        half = half * Radix + static_cast<int>(grid[i] >> (8 * j) & 255);
      }
      if (count == 0 || high[count - 1] != halves[1]) {
        high[count] = static_cast<uint8_t>(halves[1]);
        first[count++] = static_cast<uint16_t>(i);
      }
      low[i] = static_cast<uint8_t>(halves[0]);
    }
    first[count] = Count;
  }
};

template <class Q>
constexpr Runs kRuns{Q::kGrid};

/// An upper and a lower half. The lower one is in the last seven bits of an entry of its table,
/// which the least of several keeps.
struct Pick {
  Floats error, tagged;
  Ints high;

  EI_INLINE Ints low() const { return reinterpret_cast<Ints>(tagged) & 127; }
  EI_INLINE void improve(Floats e, Floats low, int number) {
    const Ints better = e < error;
    error = select(better, e, error);
    tagged = select(better, low, tagged);
    high = better ? Ints{} + number : high;
  }
  EI_INLINE void improve(Ints better, const Pick& other) {
    error = select(better, other.error, error);
    tagged = select(better, other.tagged, tagged);
    high = better ? other.high : high;
  }
};

/// Sums over digits: those of a (n), and above them those of b (m).
EI_INLINE void add_tables(const Floats* a, int n, const Floats* b, int m, Floats* out) {
  for (int j = 0; j < m; ++j) {
    for (int i = 0; i < n; ++i) out[j * n + i] = a[i] + b[j];
  }
}
/// The same, with one sign turned in either.
EI_INLINE void add_turned(const Floats* a, const Floats* a_turned, int n, const Floats* b,
                          const Floats* b_turned, int m, Floats* out) {
  for (int j = 0; j < m; ++j) {
    for (int i = 0; i < n; ++i) out[j * n + i] = min(a_turned[i] + b[j], a[i] + b_turned[j]);
  }
}

/// The tables of a point's halves, for one scale.
template <class Q, bool Turns>
struct HalfTables {
  using R = std::remove_const_t<decltype(kRuns<Q>)>;
  static constexpr int kLevels = R::kLevels, kValues = R::kValues, kHalves = R::kHalves;
  Floats plain[2][kHalves], turned[Turns ? 2 : 1][kHalves];

  /// level(r) is that of rank r times the scale, value(j) and weight(j) are those of value j.
  template <class Level, class Value, class Weight>
  EI_INLINE void fill(const Level& level, const Value& value, const Weight& weight) {
    Floats t[kValues][kLevels], turn[Turns ? kValues : 1][kLevels];
    for (int j = 0; j < kValues; ++j) {
      const Floats v = value(j), twice = v + v;
      for (int r = 0; r < kLevels; ++r) {
        const Floats q = level(r), wq = weight(q, j);
        t[j][r] = wq * (q - twice);
        if constexpr (Turns) turn[j][r] = wq * (q + twice);
      }
    }
    for (int half = 0; half < 2; ++half) {
      const int k = half * kValues / 2;
      if constexpr (kValues == 4) {
        add_tables(t[k], kLevels, t[k + 1], kLevels, plain[half]);
        if constexpr (Turns) {
          add_turned(t[k], turn[k], kLevels, t[k + 1], turn[k + 1], kLevels, turned[half]);
        }
      } else {
        constexpr int kPairs = kLevels * kLevels;
        Floats pairs[2][kPairs], turned_pairs[2][kPairs];
        for (int i = 0; i < 2; ++i) {
          const int m = k + 2 * i;
          add_tables(t[m], kLevels, t[m + 1], kLevels, pairs[i]);
          if constexpr (Turns) {
            add_turned(t[m], turn[m], kLevels, t[m + 1], turn[m + 1], kLevels, turned_pairs[i]);
          }
        }
        add_tables(pairs[0], kPairs, pairs[1], kPairs, plain[half]);
        if constexpr (Turns) {
          add_turned(pairs[0], turned_pairs[0], kPairs, pairs[1], turned_pairs[1], kPairs,
                     turned[half]);
        }
      }
    }
    for (int i = 0; i < kHalves; ++i) {
      tag(plain[0][i], i);
      if constexpr (Turns) tag(turned[0][i], i);
    }
  }
  static EI_INLINE void tag(Floats& v, int number) {
    v = reinterpret_cast<Floats>((reinterpret_cast<Ints>(v) & ~127) | number);
  }

  /// The best point, and the best one with one sign turned.
  EI_INLINE void search(Pick& best, Pick& best_turned) const {
    best = best_turned = {splat(INFINITY), Floats{}, Ints{}};
    constexpr const R& runs = kRuns<Q>;
    for (int run = 0; run < runs.count; ++run) {
      const int high = runs.high[run];
      const uint8_t* numbers = runs.low + runs.first[run];
      const int count = runs.first[run + 1] - runs.first[run];
      Floats least = plain[0][numbers[0]], least_turned{};
      if constexpr (Turns) least_turned = turned[0][numbers[0]];
      for (int i = 1; i < count; ++i) {
        least = min(plain[0][numbers[i]], least);
        if constexpr (Turns) least_turned = min(turned[0][numbers[i]], least_turned);
      }
      best.improve(plain[1][high] + least, least, high);
      if constexpr (Turns) {
        best_turned.improve(plain[1][high] + least_turned, least_turned, high);
        best_turned.improve(turned[1][high] + least, least, high);
      }
    }
  }
};
