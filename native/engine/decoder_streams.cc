// Several residual streams, of which a layer computes the first and predicts all.
//
// AltUp: Baykal et al., "Alternating Updates for Efficient Transformers" (2023), as Gemma 3n has
// it. Beside attention runs LAuReL: Menghani et al., "LAuReL: Learned Augmented Residual Layer"
// (2024), its low-rank form.
#include "engine/decoder.h"

#include <algorithm>
#include <cmath>

namespace edgeinfer {
namespace {

constexpr float kLeastSquare = 1e-5f;
constexpr int64_t kTile = 128;  // columns of all streams that stay in the first cache

float mean_square(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return static_cast<float>(sum / static_cast<double>(n));
}

}  // namespace

float* Decoder::stream(int64_t j, int64_t t) {
  return s_.streams + (j * s_.batch + t) * config_.width;
}

// y is scaled to the length of x.
void Decoder::as_large_as(const float* x, float* y) const {
  const int64_t n = config_.width;
  const float scale = std::sqrt(mean_square(x, n) / std::max(mean_square(y, n), kLeastSquare));
  for (int64_t i = 0; i < n; ++i) y[i] *= scale;
}

// streams = x, and P_j x as large as it.
void Decoder::widen(Team& team) {
  const int64_t width = config_.width;
  for_each_token(team, [&](int64_t t) {
    std::copy_n(s_.x + t * width, width, stream(0, t));
    quantise(s_.x, width, t, t + 1);
  });
  for (int64_t j = 1; j < config_.streams; ++j)
    project(team, {s_.x, s_.blocks, width, tokens_, tokens_, width},
            {{weights_.to_streams()[static_cast<size_t>(j - 1)], stream(j, 0)}});
  for_each_token(team, [&](int64_t t) {
    for (int64_t j = 1; j < config_.streams; ++j) as_large_as(stream(0, t), stream(j, t));
  });
}

// modes = tanh(R norm(x) / width), (streams,); takes h.
void Decoder::route(const Layer& layer, const float* x, int64_t t, float* modes) {
  const int64_t width = config_.width;
  norm(x, layer.stream_norm, s_.h + t * width);
  quantise(s_.h, width, t, t + 1);
  const Activations h{s_.h, s_.blocks, width, tokens_, tokens_, width};
  multiply(layer.stream_router, 0, layer.stream_router.groups(), h.slice(t, 1), modes,
           config_.streams);
  for (int64_t k = 0; k < config_.streams; ++k)
    modes[k] = std::tanh(modes[k] / static_cast<float>(width));
}

// stream_q += sum_p C[q][p] stream_p, with C a sum of matrices weighted by the modes of the first
// stream; x = the first stream.
void Decoder::predict(const Layer& layer, int64_t t) {
  const int64_t n = config_.streams, width = config_.width;
  float modes[kMostStreams], mixing[kMostStreams * kMostStreams] = {};
  route(layer, stream(0, t), t, modes);
  for (int64_t k = 0; k < n; ++k)
    for (int64_t i = 0; i < n * n; ++i) mixing[i] += modes[k] * layer.predict_coef[k * n * n + i];

  alignas(64) float before[kMostStreams * kTile];
  for (int64_t i = 0; i < width; i += kTile) {
    const int64_t count = std::min(kTile, width - i);
    for (int64_t p = 0; p < n; ++p) std::copy_n(stream(p, t) + i, count, before + p * kTile);
    for (int64_t q = 0; q < n; ++q)
      for (int64_t p = 0; p < n; ++p)
        kernels_.add_scaled(stream(q, t) + i, before + p * kTile, mixing[q * n + p], count);
  }
  std::copy_n(stream(0, t), width, s_.x + t * width);
}

// stream_j += (1 + c_j) (x - stream_0), with c = C modes of x: what was not predicted of the
// computed stream goes to all. x = scale * stream_0, which layers' own inputs are gated by.
void Decoder::correct(const Layer& layer, int64_t t) {
  const int64_t n = config_.streams, width = config_.width;
  float *const x = s_.x + t * width, *const surprise = s_.y + t * width;
  float modes[kMostStreams];
  route(layer, x, t, modes);
  for (int64_t i = 0; i < width; ++i) surprise[i] = x[i] - stream(0, t)[i];
  for (int64_t j = 0; j < n; ++j) {
    float share = 1;
    for (int64_t k = 0; k < n; ++k) share += modes[k] * layer.correct_coef[k * n + j];
    kernels_.add_scaled(stream(j, t), surprise, share, width);
  }
  for (int64_t i = 0; i < width; ++i) x[i] = stream(0, t)[i] * layer.correct_scale[i];
}

// x = the mean of the streams, all but the first through U_j and as large as it; of the rows that
// are wanted.
void Decoder::narrow(Team& team) {
  const int64_t width = config_.width, n = config_.streams;
  const auto rows = static_cast<int64_t>(wanted_->size());
  const auto each_wanted = [&](auto&& f) {
    team.for_each(rows, 1, [&](int64_t i, int64_t) { f(i, (*wanted_)[static_cast<size_t>(i)]); });
  };
  for (int64_t j = 1; j < n; ++j) {
    each_wanted([&](int64_t i, int64_t t) {
      std::copy_n(stream(j, t), width, s_.h + i * width);
      if (width % kStep == 0) kernels_.quantize(s_.h, width, width, rows, i, i + 1, s_.blocks);
    });
    project(team, {s_.h, s_.blocks, width, rows, rows, width},
            {{weights_.from_streams()[static_cast<size_t>(j - 1)], s_.y}});
    each_wanted([&](int64_t i, int64_t t) {
      float *const x = s_.x + t * width, *const y = s_.y + i * width;
      if (j == 1) std::copy_n(stream(0, t), width, x);
      as_large_as(stream(0, t), y);
      kernels_.add_scaled(x, y, 1.0f, width);
    });
  }
  each_wanted([&](int64_t, int64_t t) {
    float* const x = s_.x + t * width;
    for (int64_t i = 0; i < width; ++i) x[i] /= static_cast<float>(n);
  });
}

// x = (x + h + norm(R L h)) / sqrt(2), with h as attention had it.
void Decoder::add_narrow(Team& team, const Layer& layer) {
  const int64_t width = config_.width, rank = config_.laurel_rank;
  for_each_token(team, [&](int64_t t) { quantise(s_.h, width, t, t + 1); });
  project(team, {s_.h, s_.blocks, width, tokens_, tokens_, width}, {{layer.narrow_in, s_.narrow}});
  for_each_token(team, [&](int64_t t) { quantise(s_.narrow, rank, t, t + 1); });
  project(team, {s_.narrow, s_.blocks, rank, tokens_, tokens_, rank}, {{layer.narrow_out, s_.y}});
  for_each_token(team, [&](int64_t t) {
    float* const x = s_.x + t * width;
    kernels_.add_scaled(x, s_.h + t * width, 1.0f, width);
    add_branch(layer.narrow_post_norm, {}, t);
    for (int64_t i = 0; i < width; ++i) x[i] *= std::sqrt(0.5f);
  });
}

}  // namespace edgeinfer
