// Searches for x = d * q, q in -1..1, for 256 values.
//
// Once it is said which values become 0, the best scale is the weighted mean of the others'
// magnitudes: so magnitudes are tried to draw the line at. A scale's own line is its half. What is
// stored is stretched.

template <class B>
EI_INLINE void fit(FitTernary, B& b, Fitted* out) {
  constexpr int kLines = 7, kPolish = 2;
  constexpr float kLow = 0.1f, kHigh = 0.5f;  // of the largest magnitude
  Codes<B::kSub> codes;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Floats largest = magnitude(extreme(b, lane));
    Floats best{}, best_gain{};
    const auto attempt = [&](Floats line) EI_LAMBDA_INLINE {
      Floats sum{}, weight{};
      for (int k = 0; k < B::kSub; ++k) {
        const Floats v = magnitude(b.value(k, lane));
        const Ints kept = v > line;
        sum += select(kept, b.weigh(v, k, lane), Floats{});
        weight += select(kept, b.weigh(splat(1), k, lane), Floats{});
      }
      const Floats scale = select(weight > 0.0f, sum / weight, Floats{}), gain = sum * scale;
      best = select(gain > best_gain, scale, best);
      best_gain = max(gain, best_gain);
    };
    for (int t = 0; t < kLines; ++t) {
      attempt(largest * (kLow + (kHigh - kLow) * static_cast<float>(t) / (kLines - 1)));
    }
    for (int pass = 0; pass < kPolish; ++pass) attempt(best * 0.5f);
    write_codes(Integers<-1, 1>{}, b, lane, best, codes);
    const Floats all = energy(b, lane);
    for (int i = 0; i < kWidth; ++i) {
      out[lane + i].d = to_finite_half(best[i] * stretch(all[i], best_gain[i]));
    }
  }
  codes.read([&](int lane) EI_LAMBDA_INLINE { return out[lane].codes; });
}
