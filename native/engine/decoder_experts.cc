// A mixture of experts: which of them each token takes, and its rows on the way there and back.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/decoder.h"

namespace edgeinfer {
namespace {

// Added to the sum of sigmoids, which may all be 0; LFM2 was trained so.
constexpr float kLeastTotal = 1e-6f;

// Makes weights of a token's scores, in place; divided by what is returned they are of use alone.
float weigh_scores(Router router, float* p, int64_t experts) {
  if (router == Router::kSigmoid) {
    for (int64_t e = 0; e < experts; ++e) p[e] = 1 / (1 + std::exp(-p[e]));
    return 1;
  }
  const float most = *std::max_element(p, p + experts);
  float total = 0;
  for (int64_t e = 0; e < experts; ++e) total += p[e] = std::exp(p[e] - most);
  return total;
}

}  // namespace

// The experts of a token and their weights: the largest after the experts' biases, if there are
// any, are added, and then, if the family has it so, scaled to add up to 1.
void Decoder::choose_experts(const Layer& layer, int64_t t) {
  const int64_t experts = config_.experts, used = config_.experts_used;
  const int64_t rows = config_.ff_rows_per_token();
  const float* const bias = layer.expert_bias;
  float* p = s_.router + t * experts;
  const float total = weigh_scores(config_.router, p, experts);

  int32_t* chosen = s_.chosen + t * rows;
  float* weight = s_.chosen_weight + t * rows;
  float chosen_total = config_.router == Router::kSigmoid ? kLeastTotal : 0;
  for (int64_t j = 0; j < used; ++j) {
    int64_t best = 0;  // the first of equals
    for (int64_t e = 1; e < experts; ++e)
      if (bias ? p[e] + bias[e] > p[best] + bias[best] : p[e] > p[best]) best = e;
    chosen[j] = static_cast<int32_t>(best);
    chosen_total += weight[j] = p[best];
    p[best] = -std::numeric_limits<float>::infinity();
  }
  const float scale =
      config_.expert_weights_scale / (config_.expert_weights_norm ? chosen_total : total);
  for (int64_t j = 0; j < used; ++j)
    weight[j] *= layer.expert_scale ? scale * layer.expert_scale[chosen[j]] : scale;
  if (!config_.shared_expert) return;
  chosen[used] = static_cast<int32_t>(experts);
  weight[used] = 1 / (1 + std::exp(-s_.shared[t]));
}

// Gives each token's experts their rows, so that those of an expert are consecutive.
void Decoder::sort_by_expert() {
  const int64_t rows = tokens_ * config_.ff_rows_per_token(), blocks = config_.ff_blocks();
  int32_t* const next = s_.next_row;
  std::fill_n(next, blocks, 0);
  for (int64_t i = 0; i < rows; ++i) ++next[s_.chosen[i]];
  FfShare* share = s_.shares;
  int32_t first = 0;
  for (int32_t e = 0; e < blocks; ++e) {
    const int32_t count = std::exchange(next[e], first);
    if (count) *share++ = {e, first, count};
    first += count;
  }
  std::fill(share, s_.shares + blocks, FfShare{});
  for (int64_t i = 0; i < rows; ++i) s_.row[i] = next[s_.chosen[i]]++;
}

// A token's normalised state to the rows of its experts, in the form that their weights read.
void Decoder::gather(const Layer& layer, int64_t t) {
  const int64_t used = config_.ff_rows_per_token(), rows = tokens_ * used, n = config_.width;
  const bool quantised = layer.experts.front().up.quantised();
  for (int64_t j = 0; j < used; ++j) {
    const int64_t row = s_.row[t * used + j];
    if (quantised)
      for (int64_t b = 0; b < n / kStep; ++b)
        s_.ff_x_blocks[b * rows + row] = s_.blocks[b * tokens_ + t];
    else
      std::copy_n(s_.h + t * n, n, s_.ff_x + row * n);
  }
}

// y = the weighted sum of what a token's experts give.
void Decoder::add_experts(int64_t t) {
  const int64_t used = config_.ff_rows_per_token(), n = config_.width;
  float* y = s_.y + t * n;
  std::fill_n(y, n, 0.0f);
  for (int64_t i = t * used; i < (t + 1) * used; ++i)
    kernels_.add_scaled(y, s_.ff_x + s_.row[i] * n, s_.chosen_weight[i], n);
}

}  // namespace edgeinfer
