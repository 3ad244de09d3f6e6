// TopK: the best few of many logits, without sorting or copying the rest.
//
// One pass takes the maximum of every block. The k-th largest of these is a bound that at least k
// logits reach, and only the blocks that reach it are looked into: for 40 of 150,000 logits, one
// block in 30.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edgeinfer {

struct Candidate {
  double logit;
  double weight;  // what a stage of the sampler orders or adds up by
  int token;
};

class TopK {
 public:
  /// @param logits (n,), finite or -inf; std::domain_error names the first that is not. Must
  ///   outlive the calls of `collect`.
  /// @param excluded tokens that `collect` leaves out, rising.
  void read(std::span<const float> logits, std::span<const int> excluded);

  /// The largest logit, excluded or not.
  float best() const { return best_; }

  /// Appends, in the order of tokens, candidates that include the k best; all if k is large. A
  /// logit of -inf is none.
  void collect(size_t k, std::vector<Candidate>& out) const;

 private:
  std::span<const int> excluded_in(size_t block) const;

  std::span<const float> logits_;
  std::span<const int> excluded_;
  std::vector<float> maxima_;  // of the blocks, less what is excluded
  mutable std::vector<float> order_;
  float best_ = 0;
};

}  // namespace edgeinfer
