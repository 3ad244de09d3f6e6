#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace edgeinfer {
namespace {

using Uint128 = unsigned __int128;

constexpr Uint128 uint128(uint64_t high, uint64_t low) { return Uint128{high} << 64 | low; }

// The constants of pcg64 (PCG_DEFAULT_MULTIPLIER_128 and PCG_DEFAULT_INCREMENT_128).
constexpr Uint128 kMultiplier = uint128(0x2360ed051fc65da4, 0x4385df649fccf645);
constexpr Uint128 kIncrement = uint128(0x5851f42d4c957f2d, 0x14057b7ef767814f);

/// Falling logit; equal ones by token, so that the order is total and every run the same.
bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

bool lighter(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight < b.weight : a.token < b.token;
}

/// Calls `full(candidate)` along the order `before` until it returns true, sorting no more
/// than that takes, and drops what comes after.
template <typename Before, typename Full>
void keep_prefix(std::vector<Candidate>& kept, bool in_order, Before before, Full full) {
  size_t sorted = in_order ? kept.size() : 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (i == sorted) {
      sorted = std::min(kept.size(), std::max<size_t>(64, 4 * sorted));
      std::partial_sort(kept.begin() + i, kept.begin() + sorted, kept.end(), before);
    }
    if (full(kept[i])) {
      kept.resize(i + 1);
      return;
    }
  }
}

}  // namespace

Pcg64::Pcg64(uint64_t seed) : state_((kIncrement + seed) * kMultiplier + kIncrement) {}

uint64_t Pcg64::next() {
  state_ = state_ * kMultiplier + kIncrement;
  const auto mixed = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  const auto turn = static_cast<unsigned>(state_ >> 122);
  return mixed >> turn | mixed << (-turn & 63);
}

double Pcg64::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

Sampler::Sampler(int vocab_size, SamplerParams params, uint64_t seed, const KernelSet& kernels)
    : vocab_size_(vocab_size),
      params_(std::move(params)),
      seed_(seed),
      random_(seed),
      kernels_(kernels) {
  for (const auto& [token, bias] : params_.logit_bias) {
    if (token < 0 || token >= vocab_size_) {
      throw std::invalid_argument("logit_bias: token " + std::to_string(token) +
                                  " is not in the vocabulary");
    }
  }
}

Draw Sampler::sample(std::span<const float> logits) {
  run_chain(logits);

  const double target = random_.uniform() * total_;
  double sum = 0;
  int token = kept_.back().token;
  for (const Candidate& candidate : kept_) {
    sum += candidate.weight;
    if (sum > target) {
      token = candidate.token;
      break;
    }
  }

  const float best = others_.best();
  const double mass = kernels_.sum_exp(logits.data(), best, vocab_size_);
  const double log_mass = std::log(mass);
  Draw draw{token, double{logits[token]} - best - log_mass, {}};
  if (params_.logprobs > 0) {
    if (!adjusted_.empty()) others_.read(logits, {});
    const auto count = static_cast<size_t>(params_.logprobs);
    kept_.clear();
    others_.collect(count, kept_);
    // Impossible tokens come last; there are too few of the others only in odd cases.
    for (int i = 0; i < vocab_size_ && kept_.size() < count; ++i) {
      if (logits[i] == -std::numeric_limits<float>::infinity()) kept_.push_back({logits[i], 0, i});
    }
    const auto middle = kept_.begin() + static_cast<std::ptrdiff_t>(std::min(count, kept_.size()));
    std::partial_sort(kept_.begin(), middle, kept_.end(), better);
    for (auto it = kept_.begin(); it != middle; ++it) {
      draw.top.push_back({it->token, it->logit - best - log_mass});
    }
  }
  return draw;
}

std::vector<std::pair<int, double>> Sampler::probabilities(std::span<const float> logits) {
  run_chain(logits);
  std::vector<std::pair<int, double>> result;
  result.reserve(kept_.size());
  for (const Candidate& candidate : kept_) {
    result.emplace_back(candidate.token, candidate.weight / total_);
  }
  return result;
}

void Sampler::accept(int token) {
  if (token < 0 || token >= vocab_size_) throw std::out_of_range("token is not in the vocabulary");
  const int window = params_.repeat_last_n;
  if (window == 0) return;
  text_.push_back(token);
  ++counts_[token];
  if (window > 0 && text_.size() > static_cast<size_t>(window)) {
    const auto oldest = counts_.find(text_.front());
    if (--oldest->second == 0) counts_.erase(oldest);
    text_.pop_front();
  }
}

void Sampler::reset() {
  text_.clear();
  counts_.clear();
  random_ = Pcg64(seed_);
}

void Sampler::run_chain(std::span<const float> logits) {
  if (logits.size() != static_cast<size_t>(vocab_size_)) {
    throw std::invalid_argument("sample: " + std::to_string(logits.size()) + " logits for " +
                                std::to_string(vocab_size_) + " tokens");
  }
  adjust(logits);
  others_.read(logits, adjusted_tokens_);
  if (params_.temperature == 0) {
    keep_best(1);
    weigh(1);
    return;
  }
  if (params_.top_k > 0 && params_.top_k < vocab_size_) {
    keep_best(static_cast<size_t>(params_.top_k));
  } else {
    keep_possible(kept_.max_size());
  }
  keep_typical();
  keep_top_p();
  keep_min_p();
  weigh(params_.temperature);
}

/// Applies the biases and penalties, to the few tokens that have any.
void Sampler::adjust(std::span<const float> logits) {
  const bool penalises = params_.repeat_penalty != 1 || params_.presence_penalty != 0 ||
                         params_.frequency_penalty != 0;
  adjusted_.clear();
  for (const auto& [token, bias] : params_.logit_bias) adjusted_.push_back({bias, 0, token});
  if (penalises) {
    for (const auto& [token, count] : counts_) {
      adjusted_.push_back({0, static_cast<double>(count), token});
    }
  }
  std::ranges::sort(adjusted_, {}, &Candidate::token);
  size_t last = 0;  // of what has been added up: here logit is the bias, weight the count
  for (size_t i = 1; i < adjusted_.size(); ++i) {
    if (adjusted_[i].token != adjusted_[last].token) {
      adjusted_[++last] = adjusted_[i];
    } else {
      adjusted_[last].logit += adjusted_[i].logit;
      adjusted_[last].weight += adjusted_[i].weight;
    }
  }
  if (!adjusted_.empty()) adjusted_.resize(last + 1);

  adjusted_tokens_.clear();
  for (Candidate& candidate : adjusted_) {
    candidate.logit += logits[static_cast<size_t>(candidate.token)];
    if (candidate.weight > 0) candidate.logit = penalised(candidate.logit, candidate.weight);
    adjusted_tokens_.push_back(candidate.token);
  }
}

double Sampler::penalised(double logit, double count) const {
  const double scaled = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
  return scaled - (count * params_.frequency_penalty + params_.presence_penalty);
}

/// Keeps candidates that include the k best, in the order of tokens.
void Sampler::keep_possible(size_t k) {
  kept_.clear();
  others_.collect(k, kept_);
  const auto others = static_cast<std::ptrdiff_t>(kept_.size());
  for (const Candidate& candidate : adjusted_) {
    if (candidate.logit > -std::numeric_limits<double>::infinity()) kept_.push_back(candidate);
  }
  if (kept_.empty()) throw std::domain_error("every token has probability 0");
  std::ranges::inplace_merge(kept_, kept_.begin() + others, {}, &Candidate::token);
  sorted_ = false;
}

/// Keeps the k best, best first.
void Sampler::keep_best(size_t k) {
  keep_possible(k);
  const auto middle = kept_.begin() + static_cast<std::ptrdiff_t>(std::min(k, kept_.size()));
  std::partial_sort(kept_.begin(), middle, kept_.end(), better);
  kept_.erase(middle, kept_.end());
  sorted_ = true;
}

/// Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): the tokens whose
/// surprise is nearest to the entropy, up to the mass.
void Sampler::keep_typical() {
  if (params_.typical_p >= 1) return;
  const double best = weigh(1);
  const double log_total = std::log(total_);
  double entropy = 0;
  for (const Candidate& candidate : kept_) {
    entropy -= candidate.weight / total_ * (candidate.logit - best - log_total);
  }
  for (Candidate& candidate : kept_) {
    candidate.weight = std::abs(-(candidate.logit - best - log_total) - entropy);
  }
  double sum = 0;
  keep_prefix(kept_, false, lighter, [&](const Candidate& candidate) {
    sum += std::exp(candidate.logit - best) / total_;
    return sum > params_.typical_p;
  });
  std::sort(kept_.begin(), kept_.end(), better);
  sorted_ = true;
}

/// Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751): the best tokens up to the mass.
void Sampler::keep_top_p() {
  if (params_.top_p >= 1) return;
  weigh(1);
  double sum = 0;
  keep_prefix(kept_, sorted_, better, [&](const Candidate& candidate) {
    sum += candidate.weight / total_;
    return sum >= params_.top_p;
  });
  sorted_ = true;
}

/// Min-p (Nguyen et al. 2024, arXiv:2407.01082): at least this share of the best token's
/// probability.
void Sampler::keep_min_p() {
  if (params_.min_p <= 0) return;
  const double least = max_logit() + std::log(params_.min_p);
  std::erase_if(kept_, [&](const Candidate& candidate) { return candidate.logit < least; });
}

/// Sets the weights to exp((logit - best) / temperature) and returns best.
double Sampler::weigh(double temperature) {
  const double best = max_logit();
  total_ = 0;
  for (Candidate& candidate : kept_) {
    candidate.weight = std::exp((candidate.logit - best) / temperature);
    total_ += candidate.weight;
  }
  return best;
}

double Sampler::max_logit() const {
  if (sorted_) return kept_.front().logit;
  return std::max_element(kept_.begin(), kept_.end(),
                          [](const auto& a, const auto& b) { return a.logit < b.logit; })
      ->logit;
}

}  // namespace edgeinfer
