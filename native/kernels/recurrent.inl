// What recurrent layers are made of: gates, short causal convolutions, the delta rule.

void multiply(float* y, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) V::store(y + i, V::mul(V::load(y + i), V::load(x + i)));
  for (; i < n; ++i) y[i] *= x[i];
}

void sigmoid_mul(float* y, const float* gate, int64_t n) {
  map_values(y, gate, n, [](Floats x, const float* z) __attribute__((always_inline)) {
    return gated(x, V::load(z));
  });
}

/// A convolution of whole vectors of channels: the only copy, also for tails.
EI_NOINLINE void convolve_vectors(const float* const* rows, const float* w, int64_t w_stride,
                                  int64_t taps, bool activate, int64_t vectors, float* out) {
  for (int64_t i = 0; i < vectors * kWidth; i += kWidth) {
    Floats sum = V::mul(V::load(rows[0] + i), V::load(w + i));
    for (int64_t j = 1; j < taps; ++j)
      sum = V::fma(V::load(rows[j] + i), V::load(w + j * w_stride + i), sum);
    V::store(out + i, activate ? silu(sum) : sum);
  }
}

void convolve(const float* const* rows, const float* w, int64_t taps, bool activate, int64_t n,
              float* out) {
  const int64_t whole = n / kWidth * kWidth, rest = n - whole;
  convolve_vectors(rows, w, n, taps, activate, whole / kWidth, out);
  if (rest == 0) return;
  alignas(64) float x_tail[kMostTaps][kWidth] = {}, w_tail[kMostTaps][kWidth] = {};
  alignas(64) float y_tail[kWidth];
  const float* tails[kMostTaps];
  const auto bytes = static_cast<size_t>(rest) * sizeof(float);
  for (int64_t j = 0; j < taps; ++j) {
    __builtin_memcpy(x_tail[j], rows[j] + whole, bytes);
    __builtin_memcpy(w_tail[j], w + j * n + whole, bytes);
    tails[j] = x_tail[j];
  }
  convolve_vectors(tails, w_tail[0], kWidth, taps, activate, 1, y_tail);
  __builtin_memcpy(out + whole, y_tail, bytes);
}

static_assert(kDeltaTile == kGroupRows);
/// Key channels whose sums are apart, so that additions need not wait for each other.
constexpr int kDeltaChains = kParts < 4 ? 4 / kParts : 1;

/// What a token leaves to be written to the state: S = decay S + k delta'.
struct DeltaUpdate {
  const float* k;
  Floats decay;
  Floats delta[kParts];
};

/// Row i of the state as the update leaves it.
EI_INLINE void updated(const DeltaUpdate& u, int64_t i, const float* state, Floats* s) {
  unroll<kParts>(EI_LAMBDA(p) {
    const Floats old = V::mul(V::load(state + i * kDeltaTile + p * kWidth), u.decay);
    s[p] = V::fma(V::set(u.k[i]), u.delta[p], old);
  });
}

/// S' k and S' q; with an update pending, S is brought up to date on the way.
template <bool kPending>
EI_INLINE void look_up(const DeltaTask& task, const DeltaUpdate& u, const float* k, const float* q,
                       Floats* of_key, Floats* of_query) {
  Floats key[kDeltaChains][kParts], query[kDeltaChains][kParts];
  unroll<kDeltaChains>(
      EI_LAMBDA(c) { unroll<kParts>(EI_LAMBDA(p) { key[c][p] = query[c][p] = V::set(0); }); });
  for (int64_t i = 0; i < task.dim; i += kDeltaChains) {
    unroll<kDeltaChains>(EI_LAMBDA(c) {
      float* const row = task.state + (i + c) * kDeltaTile;
      Floats s[kParts];
      if constexpr (kPending) {
        updated(u, i + c, task.state, s);
        unroll<kParts>(EI_LAMBDA(p) { V::store(row + p * kWidth, s[p]); });
      } else {
        unroll<kParts>(EI_LAMBDA(p) { s[p] = V::load(row + p * kWidth); });
      }
      unroll<kParts>(EI_LAMBDA(p) {
        key[c][p] = V::fma(V::set(k[i + c]), s[p], key[c][p]);
        query[c][p] = V::fma(V::set(q[i + c]), s[p], query[c][p]);
      });
    });
  }
  unroll<kParts>(EI_LAMBDA(p) {
    of_key[p] = key[0][p];
    of_query[p] = query[0][p];
    unroll<kDeltaChains - 1>(EI_LAMBDA(c) {
      of_key[p] = V::add(of_key[p], key[c + 1][p]);
      of_query[p] = V::add(of_query[p], query[c + 1][p]);
    });
  });
}

EI_INLINE float dot(const float* a, const float* b, int64_t n) {
  Floats sum = V::set(0);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) sum = V::fma(V::load(a + i), V::load(b + i), sum);
  float total = V::sum(sum);
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

/// The state is read and written once a token: one token's update waits for the next one's look.
void delta_rule(const DeltaTask& task) {
  DeltaUpdate u{};
  for (int64_t t = 0; t < task.tokens; ++t) {
    const float *const k = task.k + t * task.stride, *const q = task.q + t * task.stride;
    Floats of_key[kParts], of_query[kParts];
    if (t == 0)
      look_up<false>(task, u, k, q, of_key, of_query);
    else
      look_up<true>(task, u, k, q, of_key, of_query);
    const float both = dot(q, k, task.dim);
    u.k = k;
    u.decay = V::set(task.decay[t * task.step_stride]);
    const Floats beta = V::set(task.beta[t * task.step_stride]);
    unroll<kParts>(EI_LAMBDA(p) {
      const Floats v = V::load(task.v + t * task.stride + p * kWidth);
      u.delta[p] = V::mul(beta, V::fnma(of_key[p], u.decay, v));
      const Floats out = V::fma(V::set(both), u.delta[p], V::mul(of_query[p], u.decay));
      V::store(task.out + t * task.out_stride + p * kWidth, out);
    });
  }
  for (int64_t i = 0; i < task.dim; ++i) {
    Floats s[kParts];
    updated(u, i, task.state, s);
    unroll<kParts>(EI_LAMBDA(p) { V::store(task.state + i * kDeltaTile + p * kWidth, s[p]); });
  }
}
